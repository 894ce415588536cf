//! Envelopes and answers as they are written on the wire.
//!
//! The types are made from `proto/peer.proto` by the build script. Bodies are [`Bytes`] on both
//! sides: what is received is a slice of what was read, not a copy of it.

use bytes::Bytes;

use self::generated::reply::Answer;
pub(super) use self::generated::{Envelope, Reply, peer_client, peer_server};
use crate::replication::{Envelope as Message, MESSAGE_BYTES_MAX, PeerError};

#[expect(clippy::allow_attributes_without_reason, reason = "tonic wrote it")]
mod generated {
    tonic::include_proto!("aklight.peer.v1");
}

impl From<Message> for Envelope {
    fn from(message: Message) -> Self {
        let Message { version, cluster, from, to, group, kind, body } = message;
        Self { version, cluster, from, to, group, kind, body }
    }
}

impl From<Envelope> for Message {
    fn from(envelope: Envelope) -> Self {
        let Envelope { version, cluster, from, to, group, kind, body } = envelope;
        Self { version, cluster, from, to, group, kind, body }
    }
}

impl From<Result<Bytes, PeerError>> for Reply {
    fn from(answer: Result<Bytes, PeerError>) -> Self {
        let answer = match answer {
            Ok(body) if body.len() > MESSAGE_BYTES_MAX => {
                Answer::Unknown(too_long("the answer", body.len()))
            }
            Ok(body) => Answer::Body(body),
            Err(PeerError::Refused(why)) => Answer::Refused(why),
            Err(PeerError::Unreachable(why)) => Answer::Unknown(why),
        };
        Self { answer: Some(answer) }
    }
}

impl From<Reply> for Result<Bytes, PeerError> {
    fn from(reply: Reply) -> Self {
        match reply.answer {
            Some(Answer::Body(body)) => Ok(body),
            Some(Answer::Refused(why)) => Err(PeerError::Refused(why)),
            Some(Answer::Unknown(why)) => Err(PeerError::Unreachable(why)),
            None => Err(PeerError::Unreachable(
                "its answer is of a kind that this release does not know".to_owned(),
            )),
        }
    }
}

/// Refuses a message that no broker would take, before any of it is sent.
pub(super) fn check_length(message: &Message) -> Result<(), PeerError> {
    match message.body.len() {
        length if length > MESSAGE_BYTES_MAX => {
            Err(PeerError::Refused(too_long("the message", length)))
        }
        _ => Ok(()),
    }
}

fn too_long(what: &str, length: usize) -> String {
    format!("{what} has {length} bytes; between brokers {MESSAGE_BYTES_MAX} is the most")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
    }

    prop_compose! {
        fn message()(
            version: u32, cluster in ".{0,40}", from: u64, to: u64, group: u32, kind: u32,
            body in bytes(),
        ) -> Message {
            Message { version, cluster, from, to, group, kind, body }
        }
    }

    fn answer() -> impl Strategy<Value = Result<Bytes, PeerError>> {
        prop_oneof![
            bytes().prop_map(Ok),
            ".{0,40}".prop_map(|why| Err(PeerError::Refused(why))),
            ".{0,40}".prop_map(|why| Err(PeerError::Unreachable(why))),
        ]
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written(message in message()) {
            let written = Envelope::from(message.clone()).encode_to_vec();
            let read = Envelope::decode(Bytes::from(written)).expect("readable");
            prop_assert_eq!(Message::from(read), message);
        }

        #[test]
        fn an_answer_is_read_as_it_was_written(answer in answer()) {
            let written = Reply::from(answer.clone()).encode_to_vec();
            let read = Reply::decode(Bytes::from(written)).expect("readable");
            prop_assert_eq!(Result::from(read), answer);
        }
    }

    #[test]
    fn a_body_is_a_slice_of_what_was_read() {
        let body = Bytes::from(vec![7; 1000]);
        let read = Bytes::from(Reply::from(Ok(body.clone())).encode_to_vec());
        let range = read.as_ptr_range();
        let found = Result::from(Reply::decode(read.clone()).expect("readable")).expect("a body");
        assert_eq!(found, body);
        assert!(range.contains(&found.as_ptr()), "it was copied");
    }

    #[test]
    fn fields_of_a_later_release_are_passed_over() {
        let mut written = Reply::from(Ok(Bytes::from_static(b"now"))).encode_to_vec();
        written.extend([0xFA, 0x07, 2, b'h', b'i']); // field 127, two bytes
        let read = Reply::decode(Bytes::from(written)).expect("readable");
        assert_eq!(Result::from(read), Ok(Bytes::from_static(b"now")));
    }

    #[test]
    fn an_answer_of_an_unknown_kind_leaves_the_outcome_open() {
        let read =
            Reply::decode(Bytes::from_static(&[0xFA, 0x07, 2, b'h', b'i'])).expect("readable");
        assert!(matches!(Result::from(read), Err(PeerError::Unreachable(_))));
    }

    #[test]
    fn an_answer_that_is_too_long_leaves_the_outcome_open() {
        let read = Reply::from(Ok(Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1])));
        let Err(PeerError::Unreachable(why)) = Result::from(read) else { panic!("it passed") };
        assert!(why.contains(&MESSAGE_BYTES_MAX.to_string()), "{why}");
    }
}
