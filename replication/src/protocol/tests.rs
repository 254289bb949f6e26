//! Messages against recorded ones: every message of `wire.json`, every frame of the recorded sessions, and bytes that no peer should send.

use bytes::Bytes;
use pgbee_engine::CoreKey;
use pgbee_engine::encoding::compact::Decoder;
use proptest::prelude::*;
use serde_json::Value;

use super::capability::Handshake;
use super::messages::{Message, Reason, Requested};
use crate::protomux::{Event, Limits, Mux};
use crate::secret_stream::vectors::{bytes, read};

fn kind(name: &str) -> u64 {
    const NAMES: [&str; 10] =
        ["sync", "request", "cancel", "data", "noData", "want", "unwant", "bitfield", "range", "extension"];
    NAMES.iter().position(|known| *known == name).expect("a known type") as u64
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} of {value}"))
}

/// What JavaScript reads in a message, in the words of `wire.json`, from what we read in it.
fn describe(message: &Message) -> Value {
    use serde_json::json;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let nodes = |nodes: &[pgbee_engine::crypto::merkle::TreeNode]| {
        let node = |node: &pgbee_engine::crypto::merkle::TreeNode| json!({ "index": node.index.0, "size": node.size, "hash": hex(&node.hash) });
        nodes.iter().map(node).collect::<Vec<Value>>()
    };
    match message {
        Message::Sync(sync) => json!({
            "fork": sync.fork.0, "length": sync.length.0, "remoteLength": sync.remote_length.0, "canUpgrade": sync.can_upgrade,
            "uploading": sync.uploading, "downloading": sync.downloading, "hasManifest": sync.has_manifest, "allowPush": sync.allow_push,
        }),
        Message::Request(Requested { id, fork, priority, request }) => json!({
            "id": id, "fork": fork.0, "priority": priority, "manifest": request.manifest,
            "block": request.block.map(|block| json!({ "index": block.index.0, "nodes": block.nodes })),
            "hash": request.hash.map(|hash| json!({ "index": hash.index.0, "nodes": hash.nodes })),
            "seek": request.seek.map(|seek| json!({ "bytes": seek.bytes, "padding": seek.padding })),
            "upgrade": request.upgrade.map(|upgrade| json!({ "start": upgrade.start.0, "length": upgrade.length })),
        }),
        Message::Cancel { request } => json!({ "request": request }),
        Message::Data(data) => {
            let proof = &data.proof;
            let manifest = proof.manifest.as_ref().map(|manifest| hex(&manifest.encode()));
            let signature = |bytes: &[u8]| if bytes.is_empty() { Value::Null } else { json!(hex(bytes)) };
            json!({
                "request": data.request, "fork": proof.fork.0, "manifest": manifest,
                "block": proof.block.as_ref().map(|block| json!({ "index": block.index.0, "value": hex(&block.value), "nodes": nodes(&block.nodes) })),
                "hash": proof.hash.as_ref().map(|hash| json!({ "index": hash.index.0, "nodes": nodes(&hash.nodes) })),
                "seek": proof.seek.as_ref().map(|seek| json!({ "bytes": seek.bytes, "nodes": nodes(&seek.nodes) })),
                "upgrade": proof.upgrade.as_ref().map(|upgrade| json!({
                    "start": upgrade.start.0, "length": upgrade.length, "nodes": nodes(&upgrade.nodes),
                    "additionalNodes": nodes(&upgrade.additional), "signature": signature(&upgrade.signature),
                })),
            })
        }
        Message::NoData { request, reason } => {
            let reason = match reason {
                Reason::Unknown => 0,
                Reason::NotAvailable => 1,
                Reason::InvalidRequest => 2,
                Reason::Other(reason) => *reason,
            };
            json!({ "request": request, "reason": reason })
        }
        Message::Want(span) | Message::Unwant(span) => {
            json!({ "start": span.start.0, "length": span.length, "any": span.any })
        }
        Message::Bitfield { start, words } => json!({ "start": start.0, "bitfield": words }),
        Message::Range { drop, start, length } => json!({ "drop": drop, "start": start.0, "length": length }),
        Message::Extension { name, payload } => json!({ "name": name, "message": hex(payload) }),
    }
}

/// JavaScript describes a manifest by its parts: compared by whether there is one, as its bytes are compared anyway.
fn without_manifest(mut value: Value) -> (Value, bool) {
    let Some(fields) = value.as_object_mut() else { return (value, false) };
    if fields.contains_key("block") && !fields.contains_key("id") {
        let manifest = fields.remove("manifest").unwrap_or_default();
        return (value, !manifest.is_null());
    }
    (value, false)
}

#[test]
fn every_recorded_message_is_read_and_written_as_javascript_does() {
    let wire = read("wire");
    let messages = wire["messages"].as_array().expect("messages");
    assert_eq!(messages.len(), 36);
    for case in messages {
        let encoded = Bytes::from(bytes(case, "encoded"));
        if case["type"] == "handshake" {
            let handshake = Handshake::decode(&encoded).unwrap();
            assert_eq!(handshake.encode(), encoded);
            assert_eq!(
                (Value::from(handshake.seeks), &handshake.capability[..]),
                (case["value"]["seeks"].clone(), &bytes(&case["value"], "capability")[..])
            );
            continue;
        }
        let kind = kind(case["type"].as_str().unwrap());
        let message = Message::decode(kind, &encoded).unwrap().unwrap();
        assert_eq!(message.kind(), kind);
        assert_eq!(message.encode(), encoded, "{case}");
        assert_eq!(without_manifest(describe(&message)), without_manifest(case["decodesTo"].clone()));
        assert!(encoded.len() <= message.size_hint() + 16);
    }
    for case in wire["short"].as_array().expect("short") {
        let message = Message::decode(kind(case["type"].as_str().unwrap()), &Bytes::from(bytes(case, "encoded")))
            .unwrap()
            .unwrap();
        assert_eq!(describe(&message), case["decodesTo"], "of an older peer");
    }
    assert_eq!(Message::decode(10, &Bytes::new()), Ok(None), "a type of a newer version");
}

#[test]
fn capabilities_are_those_of_javascript() {
    for case in read("crypto")["capabilities"].as_array().expect("capabilities") {
        let key = CoreKey(bytes(case, "coreKey").try_into().unwrap());
        let hash: [u8; 64] = bytes(case, "handshakeHash").try_into().unwrap();
        for (is_initiator, name) in [(true, "initiator"), (false, "responder")] {
            let shown = Handshake::new(key, is_initiator, &hash);
            assert_eq!(shown.capability[..], bytes(case, name)[..]);
            assert!(shown.proves(key, !is_initiator, &hash), "to the other side");
            assert!(!shown.proves(key, is_initiator, &hash), "it cannot be shown back");
            assert!(!shown.proves(CoreKey([1; 32]), !is_initiator, &hash));
        }
    }
}

/// The messages of one side of a recorded session, in order.
fn recorded(name: &str, side: &str) -> Vec<(u64, Bytes, Value)> {
    let transcript = read(name);
    let mut all = Vec::new();
    for frame in transcript["plain"].as_array().expect("plain").iter().filter(|frame| frame["from"] == side) {
        let decoded = &frame["decoded"];
        let entries = decoded["batch"].as_array().cloned().unwrap_or_else(|| vec![decoded.clone()]);
        let mut bodies = bodies(&bytes(frame, "frame")).into_iter();
        for entry in entries.iter().filter(|entry| entry["kind"] == "message") {
            let (kind, body) = bodies.next().expect("as many messages as were decoded");
            all.push((kind, body, entry["value"].clone()));
        }
    }
    all
}

/// The messages of both sides of a recorded session in the order they were sent.
pub(crate) fn session(name: &str) -> Vec<(String, Message)> {
    let transcript = read(name);
    let mut all = Vec::new();
    for frame in transcript["plain"].as_array().expect("plain") {
        if frame["decoded"]["kind"] == "message" || frame["decoded"]["batch"].is_array() {
            for (kind, body) in bodies(&bytes(frame, "frame")) {
                let message = Message::decode(kind, &body).unwrap().unwrap();
                all.push((frame["from"].as_str().unwrap().to_string(), message));
            }
        }
    }
    all
}

/// The messages of a frame: a batch or one. Control messages are left out.
fn bodies(frame: &[u8]) -> Vec<(u64, Bytes)> {
    let mut from = Decoder::new(frame);
    let channel = from.uint().unwrap();
    let kind = from.uint().unwrap();
    if channel != 0 {
        return vec![(kind, Bytes::copy_from_slice(from.rest()))];
    }
    let mut all = Vec::new();
    if kind == 0 {
        let mut channel = from.uint().unwrap();
        while !from.is_empty() {
            let mut entry = from.frame().unwrap();
            if entry.is_empty() {
                channel = from.uint().unwrap();
                continue;
            }
            let kind = entry.uint().unwrap();
            if channel != 0 {
                all.push((kind, Bytes::copy_from_slice(entry.rest())));
            }
        }
    }
    all
}

#[test]
fn recorded_sessions_are_read_and_written_again_byte_for_byte() {
    for name in ["transcript-live", "transcript-fork", "transcript-sparse", "transcript-store"] {
        let mut count = 0;
        for side in ["i", "r"] {
            for (kind, body, value) in recorded(name, side) {
                let message = Message::decode(kind, &body).unwrap().unwrap();
                assert_eq!(message.encode(), body);
                let (described, _) = without_manifest(describe(&message));
                let (mut value, _) = without_manifest(value);
                // Fields that a message lacks are left out of some descriptions.
                if let (Some(value), Some(described)) = (value.as_object_mut(), described.as_object()) {
                    value.retain(|name, value| described.contains_key(name) || !value.is_null());
                }
                assert_eq!(described, value);
                count += 1;
            }
        }
        assert!(count >= 10, "{name}: {count}");
    }
}

#[test]
fn a_multiplexer_delivers_what_was_recorded() {
    // The reader's side of a session, given to a multiplexer that has opened the same channel.
    let transcript = read("transcript-sparse");
    let mut mux = Mux::new(Limits::default());
    let id = transcript["plain"][0]["decoded"]["id"].as_str().unwrap();
    let id: Vec<u8> = (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();
    let channel = mux.open(super::PROTOCOL, &[super::PROTOCOL_ALIAS], &id, vec![0; 33]).unwrap();
    let mut messages = Vec::new();
    for frame in transcript["plain"].as_array().unwrap().iter().filter(|frame| frame["from"] == "r") {
        mux.handle_frame(Bytes::from(bytes(frame, "frame"))).unwrap();
        while let Some(event) = mux.poll_event().unwrap() {
            if let Event::Message { channel: of, kind, body } = event {
                assert_eq!(of, channel);
                messages.push((kind, body));
            }
        }
    }
    let expected: Vec<(u64, Bytes)> =
        recorded("transcript-sparse", "r").into_iter().map(|(kind, body, _)| (kind, body)).collect();
    assert_eq!(messages, expected);
    assert!(number(&transcript["plain"][0]["decoded"], "localId") == 1);
}

/// All recorded bodies, with their types.
fn corpus() -> Vec<(u64, Vec<u8>)> {
    let wire = read("wire");
    let messages = wire["messages"].as_array().expect("messages").iter().filter(|case| case["type"] != "handshake");
    messages.map(|case| (kind(case["type"].as_str().unwrap()), bytes(case, "encoded"))).collect()
}

#[test]
fn every_message_cut_short_is_refused_or_is_one_of_an_older_peer() {
    for (kind, body) in corpus() {
        for len in 0..body.len() {
            let cut = Bytes::copy_from_slice(&body[..len]);
            if let Ok(Some(message)) = Message::decode(kind, &cut) {
                let may_end = matches!(
                    message,
                    Message::NoData { .. } | Message::Want(_) | Message::Unwant(_) | Message::Extension { .. }
                );
                assert!(may_end, "{message:?} of {len} of {} bytes", body.len());
            }
        }
    }
}

#[test]
fn claims_beyond_reason_are_refused() {
    let decode = |kind, body: &[u8]| Message::decode(kind, &Bytes::copy_from_slice(body));
    assert!(decode(3, &[1, 1, 0, 5, 0, 129]).is_err(), "129 nodes");
    assert!(decode(7, &[0, 0xfe, 1, 0, 1, 0]).is_err(), "65537 words");
    let mut name = vec![0xfd, 1, 1];
    name.extend([b'a'; 257]);
    assert!(decode(9, &name).is_err(), "a name of 257 bytes");
    assert!(decode(9, &[2, 0xc3, 0x28]).is_err(), "a name that is not text");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_body_panics(kind in 0..11u64, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(kind, &Bytes::from(body));
    }

    #[test]
    fn no_mutation_panics_and_what_is_read_is_written_so_that_it_is_read_again(
        case in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
    ) {
        let corpus = corpus();
        let (kind, mut body) = case.get(&corpus).clone();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
            body.truncate(cut.index(body.len() + 1).max(body.len() / 2));
        }
        if let Ok(Some(message)) = Message::decode(kind, &Bytes::from(body)) {
            let again = Message::decode(kind, &Bytes::from(message.encode()));
            prop_assert_eq!(again, Ok(Some(message)));
        }
    }
}
