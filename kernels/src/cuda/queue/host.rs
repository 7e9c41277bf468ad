//! Rows through the host, for exchanges that know nothing of devices. Each of these waits.

use std::borrow::Cow;

use bytemuck::Pod;

use super::super::buffer::Buffer;
use super::super::parameters::{ARRIVE, Address, ArriveParameters, COME_HOME, ComeHomeParameters, PairDestination};
use super::super::routing::{Routing, destination};
use super::CudaQueue;
use crate::queue::{Arrived, Home, Leaving, Returning};
use crate::routing::Destination;

impl CudaQueue {
    /// Elements of the device once all is done that is on the queue; zeros where that fails, which is kept.
    pub(super) fn fetch<T: Pod>(&self, address: Address, count: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); count];
        if count > 0 && self.is_well() {
            let into = bytemuck::cast_slice_mut(&mut values);
            self.keep(self.stages.borrow_mut().read(&self.stream, address, into));
        }
        if self.is_well() { values } else { vec![T::zeroed(); count] }
    }

    /// Brings elements to the device, once all is done that is on the queue.
    fn bring<T: Pod>(&self, address: Address, values: &[T]) {
        if !values.is_empty() && self.is_well() {
            let bytes: &[u8] = bytemuck::cast_slice(values);
            let fill = |start: usize, part: &mut [u8]| part.copy_from_slice(&bytes[start..start + part.len()]);
            self.keep(self.stages.borrow_mut().write(&self.stream, (address, bytes.len()), fill));
        }
    }

    fn destinations(&self, routing: &Routing) -> Vec<Destination> {
        let found: Vec<PairDestination> = self.fetch(routing.tables().destinations, routing.chosen());
        found.iter().map(destination).collect()
    }

    /// Pairs of this rank's tokens that are computed here.
    fn own(&self, routing: &Routing) -> usize {
        let count = || self.fetch::<u32>(routing.tables().counts, 1).first().map_or(0, |own| *own as usize);
        routing.own.get().unwrap_or_else(|| {
            let own = count().min(routing.group().pairs());
            routing.own.set(Some(own));
            own
        })
    }

    pub(super) fn give_away<'a>(&self, routing: &Routing, x: &Buffer<f32>) -> Leaving<'a> {
        let destinations = self.destinations(routing);
        let rank = routing.group().rank as u32;
        routing.own.set(Some(destinations.iter().filter(|destination| destination.slot.rank == rank).count()));
        Leaving { destinations: Cow::Owned(destinations), values: Cow::Owned(self.fetch(x.address(), x.len())) }
    }

    pub(super) fn take_in(&self, routing: &mut Routing, arrived: Arrived<'_>, x: &mut Buffer<f32>) {
        let Arrived { width, values, pairs } = arrived;
        let first_pair = self.own(routing) + routing.arrived;
        let start = x.append(values.len());
        let first_row = start / width;
        let place = x.address() + (start * size_of::<f32>()) as u64;
        self.bring(place, values);
        let has_terms = self.split.get() == x.address();
        let parameters = ArriveParameters {
            values: place,
            pairs: routing.arrive(pairs),
            x: x.address(),
            terms: if has_terms { self.scratch().terms.address() } else { 0 },
            routing: routing.tables(),
            error: self.error.get(),
            width: width as u32,
            row_count: (values.len() / width) as u32,
            first_row: first_row as u32,
            pair_count: pairs.len() as u32,
            first_pair: first_pair as u32,
            slots_here: routing.group().slots as u32,
        };
        self.launch(&ARRIVE, 1 + values.len() / width, &parameters);
    }

    pub(super) fn give_back<'a>(&self, routing: &Routing, results: &Buffer<f32>) -> Returning<'a> {
        let own = self.own(routing);
        let places: Vec<u32> = self.fetch(routing.tables().places, own + routing.arrived);
        Returning {
            rows: Cow::Owned(places[own..].to_vec()),
            values: Cow::Owned(self.fetch(results.address(), results.len())),
        }
    }

    pub(super) fn take_home(&self, routing: &Routing, home: Home<'_>, results: &mut Buffer<f32>) {
        let Home { from, width, values } = home;
        let start = results.append(values.len());
        let place = results.address() + (start * size_of::<f32>()) as u64;
        self.bring(place, values);
        let parameters = ComeHomeParameters {
            values: place,
            results: results.address(),
            routing: routing.tables(),
            width: width as u32,
            row_count: (values.len() / width) as u32,
            first_row: (start / width) as u32,
            from: from as u32,
        };
        self.launch(&COME_HOME, 1 + values.len() / width, &parameters);
    }
}
