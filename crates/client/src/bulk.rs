//! The doors for many transactions: the streaming batch and the submitting socket.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{
    Acknowledge, Client, Error, Numbered, answer::numbered, follow::close_refusal,
    socket::open_socket, transport::Wire,
};

/// Pieces of an upload that wait for the connection: enough to keep it busy, few enough that the
/// node's back-pressure reaches the sender.
const PIECES_MAX: usize = 4;
/// Bytes that are gathered into one piece of an upload.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes of one answer line at most.
const LINE_BYTES_MAX: usize = 1 << 20;

impl Client {
    /// Opens a batch: transactions go up and answers come down at the same time, over one request
    /// (`POST /api/v1/transactions/batch`).
    ///
    /// The two halves have to be used by different tasks, or in turn with few transactions under way:
    /// a node that cannot deliver its answers stops reading.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn batch(
        &self,
        acknowledge: Acknowledge,
    ) -> Result<(BatchSender, BatchAnswers), Error> {
        let path = format!("/api/v1/transactions/batch?ack={}", level(acknowledge));
        let (pieces, response) = self
            .http
            .open(&path, "application/x-ndjson", PIECES_MAX)
            .await?;
        let sender = BatchSender {
            pieces,
            gathered: BytesMut::new(),
            sent: 0,
        };
        let answers = BatchAnswers {
            client: self.clone(),
            body: response.into_body(),
            unread: BytesMut::new(),
            ready: VecDeque::new(),
            ended: false,
        };
        Ok((sender, answers))
    }

    /// Opens the submitting socket: like a batch, but every transaction goes out at once.
    ///
    /// # Errors
    /// Anything between client and node; see [`Error`].
    pub async fn socket(
        &self,
        acknowledge: Acknowledge,
    ) -> Result<(SocketSender, SocketAnswers), Error> {
        let path = format!("/api/v1/transactions/submit?ack={}", level(acknowledge));
        let (sink, stream) = open_socket(self, &path).await?.split();
        Ok((
            SocketSender {
                client: self.clone(),
                sink,
                sent: 0,
            },
            SocketAnswers {
                client: self.clone(),
                stream,
            },
        ))
    }
}

const fn level(acknowledge: Acknowledge) -> &'static str {
    match acknowledge {
        Acknowledge::Accepted => "accepted",
        Acknowledge::Durable => "durable",
    }
}

/// The sending half of a batch. Dropping it without [`BatchSender::finish`] leaves gathered
/// transactions unsent.
#[derive(Debug)]
pub struct BatchSender {
    pieces: mpsc::Sender<Bytes>,
    gathered: BytesMut,
    sent: u64,
}

impl BatchSender {
    /// Adds one transaction and returns its number, counted from 0. Text is gathered into pieces;
    /// [`BatchSender::flush`] sends what is there.
    ///
    /// # Errors
    /// `Broken` when the node has ended the request.
    pub async fn send(&mut self, text: &[u8]) -> Result<u64, Error> {
        // Inside JSON a line feed is white space; in this body it would end the line.
        if text.contains(&b'\n') {
            self.gathered
                .extend(text.iter().map(|b| if *b == b'\n' { b' ' } else { *b }));
        } else {
            self.gathered.extend_from_slice(text);
        }
        self.gathered.extend_from_slice(b"\n");
        let number = self.sent;
        self.sent += 1;
        if self.gathered.len() >= PIECE_BYTES {
            self.flush().await?;
        }
        Ok(number)
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// `Broken` when the node has ended the request.
    pub async fn flush(&mut self) -> Result<(), Error> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = self.gathered.split().freeze();
        self.pieces.send(piece).await.map_err(|_| Error::Broken {
            endpoint: "batch".to_owned(),
            reason: "the node has ended the request".to_owned(),
        })
    }

    /// Sends what was gathered and ends the batch: the node answers what is under way and closes.
    ///
    /// # Errors
    /// `Broken` when the node has ended the request.
    pub async fn finish(mut self) -> Result<u64, Error> {
        self.flush().await?;
        Ok(self.sent)
    }
}

/// The answering half of a batch.
#[derive(Debug)]
pub struct BatchAnswers {
    client: Client,
    body: Incoming,
    unread: BytesMut,
    ready: VecDeque<Numbered>,
    ended: bool,
}

impl BatchAnswers {
    /// The next answer; `None` when the batch was finished and everything is answered. Answers come
    /// in any order.
    ///
    /// # Errors
    /// `Broken` when the connection ends early: what was not answered is of unknown fate.
    pub async fn next(&mut self) -> Result<Option<Numbered>, Error> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Ok(Some(answer));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.unread.extend_from_slice(data);
                        self.read_lines()?;
                    }
                }
                Some(Err(error)) => return Err(self.client.http.broken(error)),
                None => {
                    self.ended = true;
                    self.unread.extend_from_slice(b"\n");
                    self.read_lines()?;
                }
            }
        }
    }

    fn read_lines(&mut self) -> Result<(), Error> {
        let mut read = 0;
        while let Some(end) = self.unread[read..].iter().position(|b| *b == b'\n') {
            let line = &self.unread[read..read + end];
            if !line.trim_ascii().is_empty() {
                self.ready.push_back(numbered(line)?);
            }
            read += end + 1;
        }
        let _ = self.unread.split_to(read);
        if self.unread.len() > LINE_BYTES_MAX {
            return Err(Error::protocol("an endless answer line"));
        }
        Ok(())
    }
}

/// The sending half of a submitting socket.
#[derive(Debug)]
pub struct SocketSender {
    client: Client,
    sink: SplitSink<WebSocketStream<Wire>, Message>,
    sent: u64,
}

impl SocketSender {
    /// Puts one transaction into the outgoing buffer and returns its number, counted from 0.
    ///
    /// # Errors
    /// `Broken` when the connection ended; `Protocol` for text that is not UTF-8.
    pub async fn feed(&mut self, text: &[u8]) -> Result<u64, Error> {
        let text = std::str::from_utf8(text).map_err(Error::protocol)?;
        self.sink
            .feed(Message::text(text))
            .await
            .map_err(|error| self.client.http.broken(error))?;
        let number = self.sent;
        self.sent += 1;
        Ok(number)
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// `Broken` when the connection ended.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.sink
            .flush()
            .await
            .map_err(|error| self.client.http.broken(error))
    }

    /// Says goodbye. Answers that are under way are lost; count them first.
    ///
    /// # Errors
    /// `Broken` when the connection ended.
    pub async fn close(mut self) -> Result<(), Error> {
        self.sink
            .close()
            .await
            .map_err(|error| self.client.http.broken(error))
    }
}

/// The answering half of a submitting socket.
#[derive(Debug)]
pub struct SocketAnswers {
    client: Client,
    stream: SplitStream<WebSocketStream<Wire>>,
}

impl SocketAnswers {
    /// The next answer; `None` when the socket was closed in order.
    ///
    /// # Errors
    /// `Broken` when the connection ends early: what was not answered is of unknown fate; `Refused`
    /// when the node closed it with a reason.
    pub async fn next(&mut self) -> Result<Option<Numbered>, Error> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return numbered(text.as_bytes()).map(Some),
                Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) != 1000 => {
                    return Err(Error::Refused(close_refusal(
                        frame.code.into(),
                        &frame.reason,
                    )));
                }
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.client.http.broken(error)),
            }
        }
    }
}
