use proptest::{collection::vec, prelude::*};

use super::*;

const MAX: usize = 1 << 16;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn answers() -> impl Strategy<Value = Result<Bytes, AbiError>> {
    let error = (any::<u32>(), ".{0,20}", ".{0,20}")
        .prop_map(|(kind, message, data)| Err(AbiError { kind, message: message.into(), data_json: data.into() }));
    prop_oneof![bytes().prop_map(Ok), error]
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    let execute = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>(), bytes(), bytes());
    prop_oneof![
        bytes().prop_map(ToWorker::Hello),
        bytes().prop_map(ToWorker::ToolsFor),
        execute.prop_map(|(list, tool, call_id, deadline_unix_ms, info, arguments)| ToWorker::Execute {
            list,
            tool,
            call_id,
            deadline_unix_ms,
            info,
            arguments
        }),
        (any::<u64>(), any::<u32>(), bytes()).prop_map(|(list, tool, arguments)| ToWorker::Effect {
            list,
            tool,
            arguments
        }),
        (".{0,20}", bytes()).prop_map(|(service, body)| ToWorker::Request { service, body }),
        answers().prop_map(ToWorker::Reply),
        Just(ToWorker::Cancel),
        Just(ToWorker::Drop),
        bytes().prop_map(ToWorker::Notify),
        any::<u64>().prop_map(|list| ToWorker::Forget { list }),
        any::<u64>().prop_map(|deadline_ms| ToWorker::Shutdown { deadline_ms }),
    ]
}

fn to_host() -> impl Strategy<Value = ToHost> {
    let log = (any::<u8>(), any::<u64>(), ".{0,20}", ".{0,20}", ".{0,20}");
    prop_oneof![
        (any::<u32>(), ".{0,20}").prop_map(|(protocol, version)| ToHost::Hello { protocol, version }),
        answers().prop_map(ToHost::Answer),
        (".{0,20}", bytes()).prop_map(|(service, body)| ToHost::Request { service, body }),
        Just(ToHost::Cancel),
        log.prop_map(|(level, call_id, target, message, fields)| ToHost::Log {
            level,
            call_id,
            target,
            message,
            fields
        }),
        (any::<u64>(), -1.0_f32..2.0, ".{0,20}").prop_map(|(call_id, fraction, message)| ToHost::Progress {
            call_id,
            fraction,
            message
        }),
        bytes().prop_map(ToHost::Notify),
    ]
}

/// Everything that can be read of these pieces.
fn decode<M: Message>(pieces: &[&[u8]]) -> Result<Vec<(u64, M)>, FrameError> {
    let mut decoder = Decoder::new(MAX);
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.buffer.extend_from_slice(piece);
        while let Some(message) = decoder.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn what_the_host_says_arrives_however_it_is_cut(messages in vec((any::<u64>(), to_worker()), 1..5), cut in 0_usize..200) {
        let stream: Vec<u8> = messages.iter().flat_map(|(id, message)| message.encode(*id)).collect();
        let (left, right) = stream.split_at(cut.min(stream.len()));
        prop_assert_eq!(decode::<ToWorker>(&[left, right]).unwrap(), messages);
    }

    #[test]
    fn what_the_worker_says_arrives_however_it_is_cut(messages in vec((any::<u64>(), to_host()), 1..5), cut in 0_usize..200) {
        let stream: Vec<u8> = messages.iter().flat_map(|(id, message)| message.encode(*id)).collect();
        let (left, right) = stream.split_at(cut.min(stream.len()));
        prop_assert_eq!(decode::<ToHost>(&[left, right]).unwrap(), messages);
    }

    #[test]
    fn one_byte_at_a_time_is_enough(message in to_host()) {
        let stream = message.encode(7);
        let pieces: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(decode::<ToHost>(&pieces).unwrap(), vec![(7, message)]);
    }

    #[test]
    fn garbage_never_panics(garbage in vec(any::<u8>(), 0..200), kind in 0_u8..20) {
        let _ = decode::<ToHost>(&[&garbage]);
        let _ = decode::<ToWorker>(&[&garbage]);
        let _ = ToolList::decode(Bytes::from(garbage.clone()));
        let framed = Writer::new(1, kind, garbage.len()).rest(&garbage);
        let _ = decode::<ToHost>(&[&framed]);
        let _ = decode::<ToWorker>(&[&framed]);
    }

    #[test]
    fn lists_come_back_as_they_went(list in any::<u64>(), specs in vec(bytes(), 0..6)) {
        let list = ToolList { list, specs };
        prop_assert_eq!(ToolList::decode(list.encode().into()).unwrap(), list);
    }
}

#[test]
fn frames_of_a_wrong_length_or_kind_are_refused() {
    let long = ToHost::Notify(vec![0; MAX].into()).encode(1);
    assert_eq!(decode::<ToHost>(&[&long[..4]]), Err(FrameError::TooLong { found: MAX + 9, max: MAX }), "at once");
    assert_eq!(decode::<ToHost>(&[&[8, 0, 0, 0]]), Err(FrameError::TooShort { found: 8 }));
    let unknown = Writer::new(1, 99, 0).done();
    assert_eq!(decode::<ToHost>(&[&unknown]), Err(FrameError::UnknownKind(99)));
    let wrong_way = ToWorker::ToolsFor(Bytes::new()).encode(1);
    assert_eq!(decode::<ToHost>(&[&wrong_way]), Err(FrameError::UnknownKind(kind::TOOLS_FOR)));
    let trailing = Writer::new(1, kind::CANCEL, 1).rest(b"x");
    assert_eq!(decode::<ToHost>(&[&trailing]), Err(FrameError::Content { kind: kind::CANCEL }));
    let not_text = Writer::new(1, kind::PROGRESS, 13).u64(1).u32(0).rest(&[0xff]);
    assert_eq!(decode::<ToHost>(&[&not_text]), Err(FrameError::Content { kind: kind::PROGRESS }));
}
