//! The threads that serve streams, apart from those that serve requests.
//!
//! A block wakes every subscriber, and each has frames to write. On the threads of the requests, whoever
//! posts or uploads would stand in line behind a thousand subscribers at every step; apart, the operating
//! system shares the cores among both.

use std::{io, thread};

use tokio::runtime::{Builder, Runtime};

/// A runtime of its own; what still runs on it is dropped with it.
pub(crate) struct Streams(Option<Runtime>);

impl Streams {
    /// Starts the threads, one for every second core: one fills a fast network, and the ledger needs the
    /// rest.
    ///
    /// # Errors
    /// When the operating system starts no thread.
    pub(crate) fn start() -> io::Result<Streams> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(
                thread::available_parallelism()
                    .map_or(1, |cores| cores.get() / 2)
                    .max(1),
            )
            .thread_name("streams")
            .enable_time()
            .build()?;
        Ok(Streams(Some(runtime)))
    }

    /// Runs a stream to its end.
    pub(crate) fn spawn(&self, stream: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(stream);
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The last holder may be a task, which must not wait for threads.
            runtime.shutdown_background();
        }
    }
}
