//! What a coordinator of the example says.

use std::sync::Arc;

use operator::observed::RuntimeView;
use plan::map::{ExpertMap, MapShape};
use plan::wire::{MapDocument, MoveTotals, Phase, Provenance, RecordedMap, State, VERSION, WindowReport};

use plan::wire::ModelIdentity;

pub fn model() -> ModelIdentity {
    ModelIdentity { name: "tiny-moe".to_owned(), digest: "d1".to_owned(), layers: 2, experts: 32 }
}

/// A map for the example: 4 ranks with 9 slots. `shift` tells two of them apart.
pub fn map(shift: usize) -> MapDocument {
    let shape = MapShape::with_redundancy(2, 32, 4, 4).unwrap();
    let slots = |_layer| {
        (0..4).flat_map(move |rank| {
            let own = (0..8).map(move |index| rank * 8 + index);
            own.chain([(rank * 8 + 8 + shift) % 32])
        })
    };
    let slots = (0..2).flat_map(slots).map(|expert| plan::ids::ExpertId(expert as u32)).collect();
    MapDocument::new(model(), &ExpertMap::new(shape, slots).unwrap())
}

pub fn recorded(shift: usize, ratio: f64) -> RecordedMap {
    let provenance = Provenance { window: 3, window_steps: 400, window_pairs: 65_536, epoch: 2, ratio };
    RecordedMap { map: map(shift), provenance }
}

pub fn window(ratio: f64) -> WindowReport {
    WindowReport { number: 3, steps: 400, pairs: 65_536, ratio, ratio_per_layer: vec![ratio, ratio] }
}

pub fn state(epoch: u64, ratio: Option<f64>, recorded: Option<&RecordedMap>) -> State {
    State {
        version: VERSION.to_owned(),
        model: model(),
        ready: true,
        generation: 1,
        ranks: Vec::new(),
        epoch,
        map_hash: map(0).content_hash(),
        static_map: false,
        steps: 1000,
        phase: Phase::Collecting.into(),
        window_steps: 10,
        last_window: ratio.map(window),
        first_window: ratio.map(window),
        pending_transactions: 0,
        last_decision: None,
        moves: MoveTotals::default(),
        recorded_map_hash: recorded.map(|recorded| recorded.map.content_hash()),
        degraded: None,
        failure: None,
    }
}

pub fn view(epoch: u64, ratio: Option<f64>, recorded: Option<RecordedMap>) -> RuntimeView {
    RuntimeView {
        pod_uid: "pod-1".to_owned(),
        heard: jiff::Timestamp::UNIX_EPOCH,
        state: Arc::new(state(epoch, ratio, recorded.as_ref())),
        recorded: recorded.map(Arc::new),
        recorded_too_large: false,
    }
}
