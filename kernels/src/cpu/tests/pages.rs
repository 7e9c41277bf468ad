//! What pages hold, and who owns them.

use super::*;

#[test]
fn a_page_survives_the_way_to_another_rank_and_a_changed_bit_does_not_go_unseen() {
    let mut numbers = Numbers::new();
    let cpu = Cpu::new(1);
    for (weights, kind) in
        Weights::all(&mut numbers, 40 * 24).iter().zip([WeightKind::Bf16, WeightKind::F32, WeightKind::F32])
    {
        let shape = PageShape { hidden: 24, intermediate: 40, kind };
        let page = arena(&cpu, shape, [[weights; 3]]).remove(0);
        let read = |page: &Page<Cpu>| {
            let mut bytes = vec![0; Cpu::page_bytes(shape)];
            for (index, part) in bytes.chunks_mut(700).enumerate() {
                page.read(700 * index, part).unwrap();
            }
            bytes
        };
        let bytes = read(&page);
        let receive = |bytes: &[u8]| {
            let mut copy = page.arena().take().unwrap();
            for (index, part) in bytes.chunks(1000).enumerate() {
                copy.fill(1000 * index, part).unwrap();
            }
            copy.seal(cpu.fingerprinter().of(bytes));
            copy
        };
        let copy = receive(&bytes);
        assert_eq!(copy.fingerprints(), page.fingerprints());
        assert_eq!(read(&copy), bytes);
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        let mut again = receive(&changed);
        assert_ne!(again.fingerprints(), page.fingerprints());
        again.pack(weights.view(40), weights.view(40), weights.view(24)).unwrap();
        assert_eq!(again.fingerprints(), page.fingerprints(), "nothing of what it held shines through");
        let others = arena(&Cpu::new(1).with_fingerprint_seed(7), shape, [[weights; 3]]).remove(0);
        assert_eq!(read(&others), bytes);
        assert_ne!(others.fingerprints(), page.fingerprints(), "each seed has its own");
        assert_eq!(others.fingerprints(), &Cpu::new(1).with_fingerprint_seed(7).fingerprinter().of(&bytes));
    }
}

#[test]
fn a_page_has_one_owner_and_its_number_is_used_again() {
    let shape = PageShape { hidden: 2, intermediate: 2, kind: WeightKind::F32 };
    let arena = Arena::new(Arc::new(Cpu::new(1)), shape).unwrap();
    let take = || arena.take().unwrap();
    let (first, second) = (take(), take());
    assert_eq!((first.id(), second.id()), (PageId(0), PageId(1)));
    drop(first);
    assert_eq!(take().id(), PageId(0));
    assert_eq!(take().id(), PageId(0), "it was dropped at once");
    let _third = take();
    assert_eq!(take().id(), PageId(2));
}

#[test]
fn a_page_that_is_written_while_a_slot_points_at_it_fails_the_step_and_not_the_next() {
    let mut numbers = Numbers::new();
    let shape = PageShape { hidden: 4, intermediate: 4, kind: WeightKind::F32 };
    let weights = Weights::F32(numbers.vec(16));
    let (cpu, (mut results, x)) = (Cpu::new(1), (room(), filled(&numbers.vec(4))));
    let queue = cpu.queue().unwrap();
    let page = arena(&cpu, shape, [[&weights; 3]]).remove(0);
    let (batch, mut slots) = (batch(&cpu, &queue, &[(0, 1, &[])]), one_rank(&cpu, 1, 1));
    let mut routing = routing(&cpu, group(1, 1));
    routing.arrive(0, &[Pair { slot: 0, row: 0 }]);
    queue.sort(&mut slots, 0, &mut routing);
    page.arena().memory().while_written(page.id(), || {
        queue.experts(page.weights().0, &routing, &x, &mut results);
        let error = queue.collect(&batch, &slots).unwrap_err();
        assert!(error.is_worth_a_retry(), "{error}");
    });
    queue.experts(page.weights().0, &routing, &x, &mut results);
    queue.collect(&batch, &slots).unwrap();
}
