use super::*;
use crate::fabric::loopback_pair;

const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: usize = 1 << 20;

/// A fan and the peers of it.
fn fan(peers: usize) -> (Fan, Vec<Connection>) {
    let pair = |place: usize| {
        let (left, right) = loopback_pair();
        (Connection::new(left, format!("peer {place}")).unwrap(), Connection::new(right, "fan").unwrap())
    };
    let (spokes, peers) = (0..peers).map(pair).unzip();
    (Fan::new(spokes), peers)
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn each_peer_gets_its_messages_and_answers_come_in_the_order_of_peers_however_they_arrive() {
    let (mut fan, mut peers) = fan(5);
    for round in 0..20_u64 {
        for place in 0..5 {
            fan.send(place, &(round, place as u64)).unwrap();
        }
        // The last answers first, and the one that is ahead is not taken for its next.
        for (place, peer) in peers.iter_mut().enumerate().rev() {
            assert_eq!(peer.receive::<(u64, u64)>().unwrap(), (round, place as u64));
            peer.send(&(round * 10 + place as u64)).unwrap();
        }
        let answers: Vec<u64> = fan.gather(&[LIMIT; 5], soon()).unwrap();
        assert_eq!(answers, (0..5).map(|place| round * 10 + place).collect::<Vec<_>>());
    }
}

#[test]
fn answers_that_are_there_before_they_are_asked_for_are_kept() {
    let (mut fan, mut peers) = fan(2);
    for answer in 0..3_u64 {
        peers[1].send(&(answer, "x".repeat(100_000))).unwrap();
    }
    for answer in 0..3_u64 {
        peers[0].send(&(answer, String::new())).unwrap();
        let answers: Vec<(u64, String)> = fan.gather(&[LIMIT; 2], soon()).unwrap();
        assert_eq!(
            answers.iter().map(|(answer, text)| (*answer, text.len())).collect::<Vec<_>>(),
            [(answer, 0), (answer, 100_000)]
        );
    }
}

#[test]
fn messages_that_do_not_fit_the_system_s_buffers_go_while_answers_are_gathered() {
    let (mut fan, peers) = fan(2);
    let long = "x".repeat(MAX_MESSAGE_BYTES / 4);
    let peers = peers.into_iter().map(|mut peer| {
        std::thread::spawn(move || {
            // Each answers at once what it has not heard yet: neither end waits for the other to read first.
            peer.send(&"y".repeat(MAX_MESSAGE_BYTES / 8)).unwrap();
            let bytes = peer.receive::<String>().unwrap().len();
            peer.send(&"it is all here").unwrap();
            bytes
        })
    });
    let peers: Vec<_> = peers.collect();
    (0..2).for_each(|place| fan.send(place, &long).unwrap());
    let answers: Vec<String> = fan.gather(&[MAX_MESSAGE_BYTES; 2], soon()).unwrap();
    assert!(answers.iter().all(|answer| answer.len() == MAX_MESSAGE_BYTES / 8));
    // What is left goes while the next answers are gathered.
    let answers: Vec<String> = fan.gather(&[LIMIT; 2], soon()).unwrap();
    assert!(answers.iter().all(|answer| answer == "it is all here"));
    assert!(peers.into_iter().all(|peer| peer.join().unwrap() == long.len()));
}

#[test]
fn the_peer_that_is_gone_late_or_wrong_is_named() {
    let gather = |fan: &mut Fan, deadline| {
        let Broken { place, error } = fan.gather::<u64>(&[LIMIT; 3], deadline).unwrap_err();
        (place, error.to_string())
    };
    let (mut gone, mut peers) = fan(3);
    peers[0].send(&1_u64).unwrap();
    drop(peers.pop());
    assert_eq!(gather(&mut gone, soon()), (2, "peer 2 closed the connection".to_owned()));
    // An answer that was sent before its sender went away is there, and only then is it gone.
    let (mut last, mut peers) = fan(3);
    for peer in &mut peers {
        peer.send(&1_u64).unwrap();
    }
    drop(peers.pop());
    assert_eq!(last.gather::<u64>(&[LIMIT; 3], soon()).unwrap(), [1, 1, 1]);
    assert_eq!(gather(&mut last, soon()), (2, "peer 2 closed the connection".to_owned()));

    let (mut late, mut peers) = fan(3);
    peers[0].send(&1_u64).unwrap();
    peers[1].send_bytes(&[9, 0]).unwrap();
    peers[2].send(&1_u64).unwrap();
    let (started, short) = (Instant::now(), Duration::from_millis(200));
    let expected = "connection to peer 1 failed: it took too long".to_owned();
    assert_eq!(gather(&mut late, started + short), (1, expected));
    assert!((short..short * 20).contains(&started.elapsed()), "{:?}", started.elapsed());

    let (mut wrong, mut peers) = fan(3);
    peers[2].send(&"x".repeat(2 * LIMIT)).unwrap();
    let (place, reason) = gather(&mut wrong, soon());
    assert!(place == 2 && reason.contains("more than 1048576"), "{reason}");
    let (mut wrong, mut peers) = fan(3);
    peers[2].send(&(1_u64, 2_u64)).unwrap();
    let (place, reason) = gather(&mut wrong, soon());
    assert!(place == 2 && reason.contains("cannot be read"), "{reason}");
}

#[test]
fn a_length_that_is_only_announced_costs_no_memory() {
    let (mut fan, mut peers) = fan(1);
    peers[0].send_bytes(&(MAX_MESSAGE_BYTES as u32).to_le_bytes()).unwrap();
    peers[0].send_bytes(&[1; 1000]).unwrap();
    drop(peers);
    assert!(fan.gather::<Vec<u8>>(&[MAX_MESSAGE_BYTES], soon()).is_err());
    assert!(fan.spokes[0].received.capacity() <= ROOM, "{}", fan.spokes[0].received.capacity());
}

#[test]
fn closing_from_another_thread_ends_the_wait() {
    let (mut fan, _peers) = fan(3);
    let closers = fan.closers().unwrap();
    let waits = std::thread::spawn(move || fan.gather::<u64>(&[LIMIT; 3], soon()).unwrap_err().place);
    closers[1].close();
    assert_eq!(waits.join().unwrap(), 1);
}
