use std::net::TcpListener;

use plan::ids::RankId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::fabric::purpose::GroupId;

const GROUP: GroupId = GroupId { generation: 3, nonce: 9 };
const PURPOSE: Purpose = Purpose::Mesh { group: GROUP, from: RankId(2), to: RankId(1) };

fn hello(challenge: u8) -> [u8; HELLO_BYTES] {
    Hello { purpose: PURPOSE, challenge: [challenge; 32] }.to_bytes()
}

fn secret() -> Secret {
    Secret::draw().unwrap()
}

#[test]
fn two_ends_with_one_secret_prove_it_to_each_other() {
    let secret = secret();
    let hello = hello(1);
    let (answer, claim) = answer(&hello, [2; 32], |_| Some(secret.clone())).unwrap();
    let proof = prove(&hello, &answer, &secret).unwrap();
    assert_eq!(claim.check(&proof), Ok(PURPOSE));
}

#[test]
fn ends_with_different_secrets_both_find_out() {
    let hello = hello(1);
    let (answer, claim) = answer(&hello, [2; 32], |_| Some(secret())).unwrap();
    assert_eq!(prove(&hello, &answer, &secret()), Err(Refused::SecretDiffers));
    assert_eq!(claim.check(&DIFFERS), Err(TurnedAway::SecretDiffers));
}

#[test]
fn what_was_recorded_proves_nothing_on_another_connection() {
    let secret = secret();
    let recorded_hello = hello(1);
    let (recorded_answer, _) = answer(&recorded_hello, [2; 32], |_| Some(secret.clone())).unwrap();
    let recorded_proof = prove(&recorded_hello, &recorded_answer, &secret).unwrap();
    // A listener that is called by a recording draws another challenge.
    let (_, claim) = answer(&recorded_hello, [3; 32], |_| Some(secret.clone())).unwrap();
    assert_eq!(claim.check(&recorded_proof), Err(TurnedAway::SecretDiffers));
    // A caller that is answered by a recording has drawn another challenge.
    assert_eq!(prove(&hello(4), &recorded_answer, &secret), Err(Refused::SecretDiffers));
}

#[test]
fn a_listener_s_own_proof_is_no_caller_s() {
    let secret = secret();
    let (answer, claim) = answer(&hello(1), [2; 32], |_| Some(secret.clone())).unwrap();
    let proof = answer[40..].try_into().unwrap();
    assert_eq!(claim.check(proof), Err(TurnedAway::SecretDiffers));
}

#[test]
fn another_version_and_what_is_not_expected_are_answered_and_nonsense_is_not() {
    let (version, mut other) = (PROTOCOL + 1, hello(1));
    other[4..6].copy_from_slice(&version.to_le_bytes());
    let (bytes, reason) = answer(&other, [2; 32], |_| panic!("nobody asks for its secret")).unwrap_err();
    assert_eq!(reason, TurnedAway::OtherVersion(version));
    let mut from_other = bytes.unwrap();
    assert_eq!(prove(&hello(1), &from_other, &secret()), Err(Refused::NotOurs), "our own version proceeds");
    from_other[4..6].copy_from_slice(&version.to_le_bytes());
    assert_eq!(prove(&hello(1), &from_other, &secret()), Err(Refused::OtherVersion(version)));
    let (bytes, reason) = answer(&hello(1), [2; 32], |_| None).unwrap_err();
    assert_eq!(reason, TurnedAway::NotExpected);
    assert_eq!(prove(&hello(1), &bytes.unwrap(), &secret()), Err(Refused::NotExpected));
    let (bytes, reason) = answer(&[b'G'; HELLO_BYTES], [2; 32], |_| None).unwrap_err();
    assert_eq!((bytes, reason), (None, TurnedAway::NotOurs));
}

/// Every message with one to eight bytes changed.
#[test]
fn no_changed_message_proves_anything() {
    let mut random = StdRng::seed_from_u64(crate::protocol::tests::seed());
    let secret = secret();
    let mut change = |bytes: &mut [u8]| {
        let original = bytes.to_vec();
        while bytes == original {
            for _ in 0..random.random_range(1..=8) {
                let place = random.random_range(0..bytes.len());
                bytes[place] = random.random();
            }
        }
    };
    for _ in 0..crate::protocol::tests::inputs(2000) {
        let sent = hello(1);
        let mut heard = sent;
        change(&mut heard);
        if let Ok((bytes, claim)) = answer(&heard, [2; 32], |_| Some(secret.clone())) {
            // The caller proves itself on what it sent, the listener on what it heard.
            assert_eq!(prove(&sent, &bytes, &secret), Err(Refused::SecretDiffers));
            let proof = secret.prove(&[OF_CALLER, &sent, &[2; 32]]);
            assert_eq!(claim.check(&proof), Err(TurnedAway::SecretDiffers));
        }
        let (bytes, claim) = answer(&sent, [2; 32], |_| Some(secret.clone())).unwrap();
        let mut changed = bytes;
        change(&mut changed);
        // The byte of the answer that is nothing says nothing.
        let proof = prove(&sent, &changed, &secret);
        assert!(proof.is_err() || (changed[8..] == bytes[8..] && changed[..7] == bytes[..7]));
        let mut proof = prove(&sent, &bytes, &secret).unwrap();
        change(&mut proof);
        assert_eq!(claim.check(&proof), Err(TurnedAway::SecretDiffers));
    }
}

#[test]
fn a_listener_that_never_answers_or_answers_byte_by_byte_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let patience = Duration::from_millis(300);
    let dripping = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A byte at a time, until the caller has had enough.
        while stream.write_all(b"S").is_ok() {
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    let started = Instant::now();
    let error = call(&address, "rank 1", (PURPOSE, &secret()), patience).unwrap_err();
    assert!(error.to_string().contains("rank 1"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    dripping.join().unwrap();
}

#[test]
fn a_listener_that_speaks_something_else_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[b'x'; 200]).unwrap();
        stream
    });
    let error = call(&address, "rank 1", (PURPOSE, &secret()), Duration::from_secs(20)).unwrap_err();
    assert!(matches!(error, ConnectionError::NotOurs { .. }), "{error}");
    drop(server.join().unwrap());
}
