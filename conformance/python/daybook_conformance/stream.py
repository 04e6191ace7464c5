"""A subscriber that reads in the background and lets a test wait for what it needs."""

import json
import threading

import websocket

# Frames arrive within milliseconds of a commit; the bound only ends a test that would hang.
FRAME_SECONDS_MAX = 30


class Subscriber:
    """Collects every text frame of one stream, in the order of arrival."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=FRAME_SECONDS_MAX)
        self.frames = []
        self.pongs = []
        self._arrived = threading.Condition()
        self._ended = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while True:
                opcode, payload = self.socket.recv_data(control_frame=True)
                with self._arrived:
                    if opcode == websocket.ABNF.OPCODE_TEXT:
                        self.frames.append(json.loads(payload))
                    elif opcode == websocket.ABNF.OPCODE_PONG:
                        self.pongs.append(payload)
                    elif opcode == websocket.ABNF.OPCODE_PING:
                        self.socket.pong(payload)
                    elif opcode == websocket.ABNF.OPCODE_CLOSE:
                        raise websocket.WebSocketConnectionClosedException("closed by the node")
                    self._arrived.notify_all()
        except Exception as error:  # handed to whoever waits
            with self._arrived:
                self._ended = error
                self._arrived.notify_all()

    def wait(self, enough):
        """Waits until `enough(self)` holds."""
        with self._arrived:
            held = self._arrived.wait_for(
                lambda: enough(self) or self._ended is not None, FRAME_SECONDS_MAX
            )
            assert held, f"nothing more came; so far {self.frames}"
            if not enough(self):
                raise AssertionError(f"the stream ended: {self._ended!r}; so far {self.frames}")
            return list(self.frames)

    def wait_for_frames(self, count):
        return self.wait(lambda subscriber: len(subscriber.frames) >= count)

    def close(self):
        self.socket.close()
        self._thread.join(FRAME_SECONDS_MAX)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
