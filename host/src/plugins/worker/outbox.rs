//! The frames that wait to be written to the other side: a bounded queue in front of one socket.
//!
//! A frame is written by whoever puts it in, as long as nothing waits and the socket takes it; only what is left over
//! is written by the task that runs [`Outbox::run`]. So an ordinary frame costs no change of threads.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{net::UnixStream, sync::Notify};

/// The way out.
pub(super) struct Outbox {
    stream: Arc<UnixStream>,
    /// Held while a write is tried, which never blocks.
    queue: Mutex<Queue>,
    /// The writing task has something to do.
    work: Notify,
    /// Bytes have left the queue.
    room: Notify,
    max_bytes: usize,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    /// How much of the first frame has been written.
    written: usize,
    bytes: usize,
    closed: bool,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// Too much waits already.
    Full,
    /// Nothing is written any more.
    Closed,
}

impl Outbox {
    /// A queue of at most `max_bytes`, or of one frame of any size.
    pub(super) fn new(stream: Arc<UnixStream>, max_bytes: usize) -> Self {
        Self { stream, queue: Mutex::default(), work: Notify::new(), room: Notify::new(), max_bytes }
    }

    /// Takes a frame if there is room.
    ///
    /// # Errors
    ///
    /// [`NotTaken`]; the frame is dropped.
    pub(super) fn offer(&self, frame: Vec<u8>) -> Result<(), NotTaken> {
        self.put(frame, true).map_err(|(reason, _)| reason)
    }

    /// Takes a frame whatever waits. For small frames of which there can only be as many as questions.
    pub(super) fn insist(&self, frame: Vec<u8>) {
        // A closed queue has nobody to tell.
        let _ = self.put(frame, false);
    }

    /// Waits for room and puts the frame in.
    ///
    /// # Errors
    ///
    /// [`NotTaken::Closed`].
    ///
    /// # Cancel safety
    ///
    /// A wait that is dropped has put nothing in.
    pub(super) async fn send(&self, mut frame: Vec<u8>) -> Result<(), NotTaken> {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            match self.put(frame, true) {
                Ok(()) => return Ok(()),
                Err((NotTaken::Closed, _)) => return Err(NotTaken::Closed),
                Err((NotTaken::Full, back)) => frame = back,
            }
            room.await;
        }
    }

    /// Waits until everything is written, or nothing is any more.
    pub(super) async fn flushed(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let queue = self.lock();
                if queue.closed || queue.frames.is_empty() {
                    return;
                }
            }
            room.await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Writes nothing any more.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.frames.clear();
        drop(queue);
        self.work.notify_one();
        self.room.notify_waiters();
    }

    /// Writes what the socket did not take at once, until the queue is closed.
    ///
    /// # Errors
    ///
    /// What the system said when the other side is gone; the queue is closed then.
    pub(super) async fn run(&self) -> io::Result<()> {
        loop {
            self.work.notified().await;
            loop {
                let flushed = {
                    let mut queue = self.lock();
                    if queue.closed {
                        return Ok(());
                    }
                    queue.flush(&self.stream)
                };
                self.room.notify_waiters();
                match flushed {
                    Ok(true) => break,
                    Ok(false) => self.stream.writable().await?,
                    Err(error) => {
                        self.close();
                        return Err(error);
                    }
                }
            }
        }
    }

    fn put(&self, frame: Vec<u8>, within_limit: bool) -> Result<(), (NotTaken, Vec<u8>)> {
        let mut queue = self.lock();
        if queue.closed {
            return Err((NotTaken::Closed, frame));
        }
        let idle = queue.frames.is_empty();
        if within_limit && !idle && queue.bytes + frame.len() > self.max_bytes {
            return Err((NotTaken::Full, frame));
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        // An error is met again, and told, by the writing task.
        if !idle || !queue.flush(&self.stream).unwrap_or(false) {
            self.work.notify_one();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Writes until all is written (`true`) or the socket takes no more.
    fn flush(&mut self, stream: &UnixStream) -> io::Result<bool> {
        while let Some(frame) = self.frames.front() {
            match stream.try_write(&frame[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if self.written == frame.len() {
                self.bytes -= self.written;
                self.written = 0;
                self.frames.pop_front();
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt, time::timeout};

    use super::*;

    fn pair(max_bytes: usize) -> (Arc<Outbox>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Arc::new(Outbox::new(Arc::new(ours), max_bytes)), theirs)
    }

    /// Far more than a socket's own buffer holds.
    const LARGE: usize = 4 << 20;

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_also_those_that_do_not_fit_at_once() {
        let (outbox, mut theirs) = pair(3 * LARGE);
        let writer = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.run().await }
        });
        outbox.offer(b"first".to_vec()).unwrap();
        outbox.offer(vec![7; LARGE]).unwrap();
        outbox.offer(b"last".to_vec()).unwrap();
        let mut read = vec![0; 5 + LARGE + 4];
        timeout(Duration::from_secs(20), theirs.read_exact(&mut read)).await.unwrap().unwrap();
        assert!(read.starts_with(b"first") && read.ends_with(b"last"));
        outbox.close();
        writer.await.unwrap().unwrap();
        assert_eq!(outbox.offer(vec![1]), Err(NotTaken::Closed));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_those_who_wait_get_room() {
        let (outbox, mut theirs) = pair(10);
        outbox.offer(vec![1; LARGE]).unwrap();
        assert_eq!(outbox.offer(vec![2; 11]), Err(NotTaken::Full));
        outbox.insist(vec![2; 11]);
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.send(vec![3; 4]).await }
        });
        tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.run().await }
        });
        let mut read = vec![0; LARGE + 15];
        timeout(Duration::from_secs(20), theirs.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert!(read.ends_with(&[2, 3, 3, 3, 3]));
    }

    #[tokio::test]
    async fn whoever_waits_hears_that_the_other_side_is_gone() {
        let (outbox, theirs) = pair(10);
        outbox.offer(vec![1; LARGE]).unwrap();
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.send(vec![3; 4]).await }
        });
        drop(theirs);
        let written = timeout(Duration::from_secs(20), outbox.run()).await.unwrap();
        assert!(written.is_err());
        assert_eq!(waiting.await.unwrap(), Err(NotTaken::Closed));
    }
}
