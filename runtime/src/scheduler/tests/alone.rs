//! Whatever happens, each sequence gives what it gives alone.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Action {
    Submit { prompt: usize, max_tokens: u32, score: bool },
    Steps(usize),
    Abort(usize),
    LoseRank,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (1usize..20, 0u32..13, any::<bool>())
            .prop_map(|(prompt, max_tokens, score)| Action::Submit { prompt, max_tokens, score }),
        4 => (1usize..6).prop_map(Action::Steps),
        1 => (0usize..40).prop_map(Action::Abort),
        1 => Just(Action::LoseRank),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_sequence_gives_what_it_gives_alone_and_ends_and_leaves_no_block_behind(
        actions in proptest::collection::vec(action(), 1..60),
        ranks in 1usize..4,
        blocks in 8u32..14,
        depth in 1usize..4,
    ) {
        let size = RankCache { blocks, block_tokens: 4 };
        let mut group = Group { depth, ..Group::new(ranks, size, LIMITS) };
        let mut requests = BTreeMap::new();
        let mut aborted = BTreeSet::new();
        for action in actions {
            match action {
                Action::Submit { prompt, max_tokens, score } => {
                    let seed = requests.len() as u32;
                    let prompt: Vec<u32> = (0..prompt as u32).map(|index| (seed * 13 + index * 5) % 97).collect();
                    let request = NewSequence { score_prompt: score, ..asks(&prompt, max_tokens) };
                    if let Ok(ids) = group.scheduler.submit(vec![request.clone()]) {
                        requests.insert(ids[0], request);
                    }
                }
                Action::Steps(count) => (0..count).for_each(|_| { group.step(); }),
                Action::Abort(index) => {
                    if let Some((&id, _)) = requests.iter().nth(index)
                        && group.scheduler.abort(id)
                    {
                        aborted.insert(id);
                    }
                }
                Action::LoseRank => {
                    // Who is in three lost steps in a row is given up.
                    aborted.extend(group.lose());
                    group.form();
                }
            }
        }
        group.run_to_the_end(5_000);
        for (id, request) in requests.iter().filter(|(id, _)| !aborted.contains(id)) {
            let (tokens, finish) = alone(request);
            prop_assert_eq!(&group.given[id], &tokens);
            prop_assert_eq!(group.finished.get(id), Some(&finish));
            let scored = if request.score_prompt { &request.prompt[1..] } else { &[] };
            prop_assert_eq!(&group.scored[id], scored);
        }
        prop_assert_eq!(group.scheduler.blocks_used().sum::<usize>(), 0);
        prop_assert!(group.started.is_sorted(), "the first step of each comes in the order of submission");
    }
}
