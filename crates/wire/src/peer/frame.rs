//! Frames: many messages at once, since a frame costs what a message costs.
//!
//! Owns: the limits of messages and frames. Never: waits for more messages than there are.
use std::collections::VecDeque;

use kapell_model::limits::{PAYLOAD_BYTES_MAX, RUN_OUTPUT_BYTES_MAX};
use kapell_proto::peer::v1::{PeerFrame, PeerMessage};
use prost::Message as _;
use prost::encoding::encoded_len_varint;

/// A frame is full at this size; a larger message travels alone.
pub const FRAME_BYTES: usize = 64 << 10;
/// Messages of one frame.
pub const FRAME_MESSAGES_MAX: usize = 512;
/// Starts, commands or definitions of one ask; more are asked in several. As many as a shard decides in one batch.
pub const ASK_ITEMS_MAX: usize = 2_048;
/// Largest frame that an owner takes: the output of a run, for its parent, with room around it. The kernel refuses what
/// is above its own limits, and says so; this one ends the stream.
pub const ASK_FRAME_BYTES_MAX: usize = 32 << 20;
/// Largest frame that an asker takes: the image of a run, with all that its steps gave.
pub const ANSWER_FRAME_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(ASK_FRAME_BYTES_MAX > RUN_OUTPUT_BYTES_MAX + PAYLOAD_BYTES_MAX);
const _: () = assert!(FRAME_BYTES < ASK_FRAME_BYTES_MAX && ASK_FRAME_BYTES_MAX <= ANSWER_FRAME_BYTES_MAX);

/// A message that no frame can hold. Sent all the same, it would end the stream and all that is asked on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are too many for a message to another coordinator, at most {most} are possible")]
pub struct TooLong {
    /// Its frame alone.
    pub bytes: usize,
    /// The limit.
    pub most: usize,
}

/// A message that waits for its frame, measured once.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    message: PeerMessage,
    bytes: usize,
}

impl Outgoing {
    /// A message for a side that takes frames of so many bytes: [`ASK_FRAME_BYTES_MAX`] or [`ANSWER_FRAME_BYTES_MAX`].
    pub fn new(message: PeerMessage, most: usize) -> Result<Outgoing, TooLong> {
        let length = message.encoded_len();
        // One byte names the field.
        let bytes = 1 + encoded_len_varint(length as u64) + length;
        if bytes > most { Err(TooLong { bytes, most }) } else { Ok(Outgoing { message, bytes }) }
    }

    /// What it takes of a frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The next frame of what waits; `None`: nothing does.
pub fn next_frame(waiting: &mut VecDeque<Outgoing>) -> Option<PeerFrame> {
    let (mut messages, mut bytes) = (Vec::new(), 0);
    while messages.len() < FRAME_MESSAGES_MAX {
        let Some(next) = waiting.front() else { break };
        bytes += next.bytes;
        if bytes > FRAME_BYTES && !messages.is_empty() {
            break;
        }
        messages.extend(waiting.pop_front().map(|next| next.message));
    }
    (!messages.is_empty()).then_some(PeerFrame { messages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kapell_proto::peer::v1::{Answer, Unsupported, answer, peer_message};

    /// A message that takes about so many bytes of its frame; at least 32.
    fn message(bytes: usize) -> PeerMessage {
        let reason = "x".repeat(bytes - 32);
        let what = Some(answer::What::Unsupported(Unsupported { reason }));
        PeerMessage { kind: Some(peer_message::Kind::Answer(Answer { tag: 1, what })) }
    }

    fn waiting(bytes: impl IntoIterator<Item = usize>) -> VecDeque<Outgoing> {
        bytes.into_iter().map(|bytes| Outgoing::new(message(bytes), ASK_FRAME_BYTES_MAX).unwrap()).collect()
    }

    /// Sizes of the frames, as they are encoded.
    fn frames(mut waiting: VecDeque<Outgoing>) -> Vec<(usize, usize)> {
        let mut frames = Vec::new();
        while let Some(frame) = next_frame(&mut waiting) {
            frames.push((frame.messages.len(), frame.encoded_len()));
        }
        frames
    }

    #[test]
    fn a_frame_takes_what_fits_and_a_larger_message_goes_alone() {
        assert_eq!(frames(VecDeque::new()), []);
        let counts = |sizes: &[(usize, usize)]| sizes.iter().map(|(count, _)| *count).collect::<Vec<_>>();
        let kibi = |kibi: usize| kibi << 10;
        let sent = frames(waiting([kibi(30), kibi(30), kibi(30), kibi(300), 100, 100]));
        assert_eq!(counts(&sent), [2, 1, 1, 2]);
        let sent = frames(waiting(std::iter::repeat_n(100, 2_000)));
        assert!(sent.iter().all(|(_, bytes)| *bytes <= FRAME_BYTES), "{sent:?}");
        let small = frames(waiting(std::iter::repeat_n(40, FRAME_MESSAGES_MAX + 1)));
        assert_eq!(counts(&small), [FRAME_MESSAGES_MAX, 1]);
    }

    #[test]
    fn a_message_is_measured_as_its_frame_is_encoded() {
        for bytes in [32, 100, 127, 128, 160, 300, 20_000, FRAME_BYTES * 3] {
            let outgoing = Outgoing::new(message(bytes), ASK_FRAME_BYTES_MAX).unwrap();
            let frame = PeerFrame { messages: vec![outgoing.message.clone()] };
            assert_eq!(outgoing.bytes(), frame.encoded_len());
        }
    }

    #[test]
    fn a_message_that_would_end_the_stream_is_refused_before() {
        let most = Outgoing::new(message(5_000), ASK_FRAME_BYTES_MAX).unwrap().bytes();
        assert!(Outgoing::new(message(5_000), most).is_ok(), "the limit itself fits");
        let refused = Outgoing::new(message(5_001), most);
        assert_eq!(refused, Err(TooLong { bytes: most + 1, most }));
    }
}
