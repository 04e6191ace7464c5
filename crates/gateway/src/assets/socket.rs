//! `GET /api/v1/transactions/submit`: a WebSocket that takes one transaction per message, as many under
//! way as the window allows, and answers each in the order in which they are settled.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use daybook_ledger::{Rejection, RejectionClass};
use daybook_pipeline::{Acknowledge, Outcome, Outcomes, Submitter};
use daybook_wire::{
    assets::{Label, Query, level, socket_message},
    websocket::{Decoder, Message, write_close, write_ping, write_pong, write_text},
};
use http::Request;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
    time::{Instant, interval, timeout, timeout_at},
};

use super::{Handled, acknowledge, batch::write_outcome};
use crate::{
    budget::Held,
    connection::{Connection, Socket},
    server::{Gateway, Phase, reached},
    websocket::{CLOSE_TIMEOUT, READ_BYTES, code, handshake, opened},
};

/// Submissions of one socket that are under way: enough to fill a block.
const WINDOW: usize = 4_096;

/// What a message may have around its transaction: a tag, an acknowledgement, white space.
const ENVELOPE_BYTES_MAX: usize = 1 << 10;

/// Replies that need no outcome and wait to be written.
const NOTES_WAITING_MAX: usize = 64;

pub(super) fn open(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    mut request: Request<Incoming>,
) -> Handled {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let acknowledge = acknowledge(level(&query)?);
    query.refuse_unknown(&["ack"])?;
    let (reply, upgrade) = handshake(&mut request)?;
    tokio::spawn(serve(
        gateway.clone(),
        connection.clone(),
        upgrade,
        acknowledge,
    ));
    Ok(reply)
}

async fn serve(
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    upgrade: OnUpgrade,
    acknowledge: Acknowledge,
) {
    let Some((socket, input)) = opened(upgrade).await else {
        return;
    };
    let (read, write) = tokio::io::split(socket);
    let (submitter, outcomes) = gateway.node.submitter(WINDOW);
    let (notes, noted) = mpsc::channel(NOTES_WAITING_MAX);
    let tags = Arc::new(Tags::default());
    let reader = Reader {
        gateway: gateway.clone(),
        connection,
        input,
        held: None,
        begun: None,
        decoder: Decoder::new(gateway.settings.transaction_bytes_max + ENVELOPE_BYTES_MAX),
        acknowledge,
        submitter,
        notes,
        tags: tags.clone(),
        next: 0,
    };
    let reading = tokio::spawn(reader.run(read));
    let mut writer = Writer {
        gateway,
        socket: write,
        tags,
        out: Vec::new(),
        line: Vec::new(),
    };
    // When replies can no longer be written there is no use in reading on.
    if !writer.run(outcomes, noted).await {
        reading.abort();
    }
}

/// Tags of submissions under way, by the number of their message. Untagged ones have no entry.
#[derive(Default)]
struct Tags(Mutex<HashMap<u64, Box<str>>>);

/// What the writer is told beside outcomes.
enum Note {
    Pong(Bytes),
    Refused {
        number: u64,
        message: String,
    },
    /// The node is stopping: the message got no outcome.
    Stopped {
        number: u64,
    },
    /// Nothing more will be submitted; close with this once everything is answered.
    Close {
        code: u16,
        reason: String,
    },
}

struct Reader {
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    input: BytesMut,
    /// Room for the message that is begun.
    held: Option<Held>,
    /// Since when the rest of the message that is begun is waited for, and its number.
    begun: Option<(Instant, u64)>,
    decoder: Decoder,
    acknowledge: Acknowledge,
    submitter: Submitter,
    notes: mpsc::Sender<Note>,
    tags: Arc<Tags>,
    /// Number of the next message, from 0.
    next: u64,
}

impl Reader {
    async fn run(mut self, mut socket: ReadHalf<Socket>) {
        let (code, reason) = self.read(&mut socket).await;
        let _ = self.notes.send(Note::Close { code, reason }).await;
    }

    /// Reads and submits until the socket is to be closed; tells with which code and why.
    async fn read(&mut self, socket: &mut ReadHalf<Socket>) -> (u16, String) {
        let silence = self.gateway.settings.silence_timeout;
        let patience = self.gateway.settings.body_timeout;
        let mut phase = self.gateway.phase.clone();
        loop {
            if let Err(close) = self.take_messages().await {
                return close;
            }
            // What is left is the beginning of a message that is longer than one read.
            let begun = self.input.len() + self.decoder.held_bytes();
            if !self.gateway.budget.try_resize(&mut self.held, begun) {
                return (code::TRY_AGAIN_LATER, "the node is busy".to_owned());
            }
            self.begun = match self.begun {
                _ if begun == 0 => None,
                Some((since, number)) if number == self.next => Some((since, number)),
                _ => Some((Instant::now(), self.next)),
            };
            // Whoever begins a message holds room that others want, and may not make it last: no longer than
            // the body of a request may.
            let now = Instant::now();
            let silent = now + silence;
            let late = self.begun.map(|(since, _)| since + patience);
            let too_slow = || {
                (
                    code::TRY_AGAIN_LATER,
                    "a message came too slowly".to_owned(),
                )
            };
            // Bytes that are always there are no excuse for a message that never ends.
            if late.is_some_and(|late| late <= now) {
                return too_slow();
            }
            let until = late.map_or(silent, |late| late.min(silent));
            self.input.reserve(READ_BYTES);
            let read = tokio::select! {
                read = timeout_at(until, socket.read_buf(&mut self.input)) => read,
                () = reached(&mut phase, Phase::Stopping) => {
                    return (code::GOING_AWAY, "the node is stopping".to_owned());
                }
            };
            match read {
                Ok(Ok(bytes)) if bytes > 0 => {}
                Ok(_) => return (code::NORMAL, String::new()),
                Err(_) if until < silent => return too_slow(),
                Err(_) => return (code::GOING_AWAY, "silent for too long".to_owned()),
            }
        }
    }

    /// Takes every whole message out of the input and hands the transactions over in runs.
    async fn take_messages(&mut self) -> Result<(), (u16, String)> {
        let mut run = Vec::new();
        let mut run_level = self.acknowledge;
        let ended = loop {
            let text = match self.decoder.decode(&mut self.input) {
                Ok(None) => break Ok(()),
                Ok(Some(Message::Text(text) | Message::Binary(text))) => text,
                Ok(Some(Message::Pong(_))) => continue,
                Ok(Some(Message::Ping(payload))) => {
                    self.note(Note::Pong(payload)).await?;
                    continue;
                }
                Ok(Some(Message::Close(code))) => {
                    break Err((code.unwrap_or(code::NORMAL), String::new()));
                }
                Err(error) => break Err((error.close_code(), error.to_string())),
            };
            let number = self.next;
            self.next += 1;
            let message = match socket_message(&text) {
                Ok(message) => message,
                Err(message) => {
                    self.note(Note::Refused { number, message }).await?;
                    continue;
                }
            };
            if let Some(tag) = message.tag {
                self.tags.0.lock().insert(number, tag);
            }
            let level = message.level.map_or(self.acknowledge, acknowledge);
            if level != run_level {
                self.submit(std::mem::take(&mut run), run_level).await?;
                run_level = level;
            }
            run.push((number, message.transaction));
        };
        self.submit(run, run_level).await?;
        ended
    }

    async fn submit(
        &mut self,
        run: Vec<(u64, Bytes)>,
        level: Acknowledge,
    ) -> Result<(), (u16, String)> {
        if run.is_empty() {
            return Ok(());
        }
        self.gateway.meters.bulk_lines.increment(run.len() as u64);
        self.gateway
            .pay(self.connection.peer, run.len() as u32)
            .await;
        let mut run = run.into_iter();
        let mut last = None;
        let handed_over = run.by_ref().inspect(|(number, _)| last = Some(*number));
        if self.submitter.submit_all(handed_over, level).await {
            return Ok(());
        }
        // The last one that was handed over was not taken, and those behind it were not asked for.
        for number in last.into_iter().chain(run.map(|(number, _)| number)) {
            self.note(Note::Stopped { number }).await?;
        }
        Err((code::GOING_AWAY, "the node is stopping".to_owned()))
    }

    async fn note(&mut self, note: Note) -> Result<(), (u16, String)> {
        let gone = |_| (code::NORMAL, String::new());
        self.notes.send(note).await.map_err(gone)
    }
}

struct Writer {
    gateway: Arc<Gateway>,
    socket: WriteHalf<Socket>,
    tags: Arc<Tags>,
    out: Vec<u8>,
    line: Vec<u8>,
}

impl Writer {
    /// Writes replies until the socket is closed in order. False when it broke.
    async fn run(&mut self, mut outcomes: Outcomes, mut notes: mpsc::Receiver<Note>) -> bool {
        let mut arrived = Vec::new();
        let mut close = None;
        let mut beat = interval(self.gateway.settings.ping_interval);
        beat.reset();
        let (mut more_outcomes, mut more_notes) = (true, true);
        while more_outcomes || more_notes {
            tokio::select! {
                more = outcomes.next(&mut arrived), if more_outcomes => more_outcomes = more,
                note = notes.recv(), if more_notes => match note {
                    Some(Note::Close { code, reason }) => close = Some((code, reason)),
                    Some(note) => self.note(note),
                    None => more_notes = false,
                },
                _ = beat.tick() => write_ping(&mut self.out, b""),
            }
            for (number, outcome) in arrived.drain(..) {
                self.outcome(number, &outcome);
            }
            while let Ok(note) = notes.try_recv() {
                match note {
                    Note::Close { code, reason } => close = Some((code, reason)),
                    note => self.note(note),
                }
            }
            if !self.flush().await {
                return false;
            }
        }
        let (code, reason) = close.unwrap_or((code::NORMAL, String::new()));
        write_close(&mut self.out, code, &reason);
        let goodbye = async {
            self.flush().await;
            let _ = self.socket.shutdown().await;
        };
        let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        true
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Pong(payload) => write_pong(&mut self.out, &payload),
            Note::Refused { number, message } => {
                let rejection = Rejection::new(RejectionClass::MalformedJson, message);
                self.outcome(
                    number,
                    &Outcome::Rejected {
                        id: None,
                        rejection,
                    },
                );
            }
            Note::Stopped { number } => self.outcome(number, &Outcome::Stopped),
            Note::Close { .. } => {}
        }
    }

    fn outcome(&mut self, number: u64, outcome: &Outcome) {
        let tag = self.tags.0.lock().remove(&number);
        let label = tag.as_deref().map_or(Label::Number(number), Label::Tag);
        self.line.clear();
        write_outcome(&mut self.line, label, outcome);
        write_text(&mut self.out, &self.line);
    }

    /// Writes everything pending. False when the client takes nothing for too long or is gone.
    async fn flush(&mut self) -> bool {
        let stall = self.gateway.settings.stall_timeout;
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            match timeout(stall, self.socket.write(rest)).await {
                Ok(Ok(written)) if written > 0 => rest = &rest[written..],
                _ => return false,
            }
        }
        self.out.clear();
        matches!(timeout(stall, self.socket.flush()).await, Ok(Ok(())))
    }
}
