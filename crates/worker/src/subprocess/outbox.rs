//! What waits to be written to a child: bounded, so that a child that does not read costs no more than that.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::lock;
use crate::wire::MAX_FRAME_BYTES;

/// Bytes that may wait.
const MAX_QUEUED_BYTES: usize = 2 * MAX_FRAME_BYTES;

/// Frames on their way to a child that may not read them.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
}

impl Outbox {
    /// Whether there was room. What nobody will read any more counts as sent.
    pub fn put(&self, frame: Vec<u8>) -> bool {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return true;
        }
        if queue.bytes + frame.len() > MAX_QUEUED_BYTES {
            return false;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.changed.notify_one();
        true
    }

    pub fn close(&self) {
        let mut queue = lock(&self.queue);
        *queue = Queue { closed: true, ..Queue::default() };
        drop(queue);
        self.changed.notify_one();
    }

    /// Writes until closed or until the pipe breaks, which the reader learns as well.
    pub fn write_to(&self, mut pipe: impl Write) {
        loop {
            let queue = lock(&self.queue);
            let waited = self.changed.wait_while(queue, |queue| queue.frames.is_empty() && !queue.closed);
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(frame) = queue.frames.pop_front() else { return };
            queue.bytes -= frame.len();
            drop(queue);
            if pipe.write_all(&frame).and_then(|()| pipe.flush()).is_err() {
                return self.close();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_in_order_and_no_more_are_kept_than_fit() {
        let outbox = Outbox::default();
        assert!(outbox.put(vec![1; MAX_QUEUED_BYTES - 1]));
        assert!(outbox.put(vec![2]));
        assert!(!outbox.put(vec![3]));
        struct Pipe<'a>(&'a Outbox, Vec<u8>);
        impl Write for Pipe<'_> {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.1.extend_from_slice(&bytes[..1]);
                if bytes[0] == 2 {
                    self.0.close();
                }
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut pipe = Pipe(&outbox, Vec::new());
        outbox.write_to(&mut pipe);
        assert_eq!(pipe.1, [1, 2]);
        assert!(outbox.put(vec![0; MAX_QUEUED_BYTES + 1]), "nobody will read it any more, and it is not kept");
    }
}
