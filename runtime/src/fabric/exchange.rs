//! How the rows of one MoE layer get to the ranks that compute them, and their results back.

pub mod device;
pub mod form;
pub mod host;
pub mod means;

use kernels::backend::Backend;

use super::FabricError;

/// Between the ranks of one group. Every rank makes the same exchanges in the same order.
pub trait Exchange<B: Backend>: Send {
    /// Ranks of the group. Where there is one, nothing is exchanged.
    fn ranks(&self) -> usize;

    /// Whether all of it is operations of the device, the same in every step of as many tokens: then steps may be put on the queue
    /// again without asking it.
    fn is_on_device(&self) -> bool {
        false
    }

    /// Whether it is as much on every rank, whatever that has itself: then all ranks prepare a step for the tokens of the largest, and put
    /// it on the queue again, or do not, alike.
    fn is_uniform(&self) -> bool {
        false
    }

    /// Gives every other rank the rows that its slots are to compute, and puts those of the other ranks behind this rank's own
    /// in `x`, their pairs behind its own in `routing`.
    ///
    /// # Errors
    /// If a rank is lost or sends what cannot be. The group must be formed again then.
    fn dispatch(
        &mut self,
        queue: &B::Queue,
        routing: &mut B::Routing,
        x: &mut B::Buffer<f32>,
    ) -> Result<(), FabricError>;

    /// Gives the other ranks the results of their pairs, and puts those of this rank's tokens behind its own in `results`.
    ///
    /// # Errors
    /// As [`Self::dispatch`].
    fn combine(
        &mut self,
        queue: &B::Queue,
        routing: &mut B::Routing,
        results: &mut B::Buffer<f32>,
    ) -> Result<(), FabricError>;

    /// A step begins, in which no rank has more tokens than these.
    fn begin(&mut self, _tokens: usize) {}

    /// What became of a step's exchanges, once it was collected: nothing of the step can be used if a rank was given up meanwhile.
    ///
    /// # Errors
    /// As [`Self::dispatch`].
    fn end(&mut self) -> Result<(), FabricError> {
        Ok(())
    }
}

/// Ends the waits of an exchange from another thread.
pub type ExchangeCloser = Box<dyn Fn() + Send>;
