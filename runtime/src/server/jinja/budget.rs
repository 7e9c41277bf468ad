//! What rendering may cost: steps, bytes made on the way, and the length of what comes out. A template that runs away
//! ends in bounded time and memory.

use super::JinjaError;
use super::value::Value;

/// Nodes evaluated and items touched; some seconds' worth at the very most.
const STEPS: u64 = 10_000_000;
/// Bytes of text and lists made on the way, for whatever input and for each of its bytes.
const BYTES: u64 = 128 << 20;
const BYTES_FOR_EACH: u64 = 64;
/// What an item of a list takes.
const ITEM: u64 = size_of::<Value>() as u64;
/// The clock is looked at each time that so many steps were made.
const STEPS_A_LOOK: u64 = 1 << 12;
/// Names of variables and members that are compared in the time of a step.
const NAMES_A_STEP: usize = 16;
/// Calls and brackets that may lie in one another while rendering: each takes some of the thread's stack.
const DEPTH: usize = 320;
/// A macro, or a block that is captured, counts as so many: it takes as much of the stack.
const CAPTURED: usize = 6;

/// Whether rendering has taken too long: a net below the steps, for work that they count too low.
pub type IsLate<'c> = &'c dyn Fn() -> bool;

/// What is left to spend.
pub(super) struct Budget<'c> {
    is_late: IsLate<'c>,
    steps: u64,
    bytes: u64,
    depth: usize,
    /// Bytes that any one text may have.
    longest: usize,
}

impl<'c> Budget<'c> {
    /// For an input of so many bytes and an output of at most `longest`.
    pub fn new(input: usize, longest: usize, is_late: IsLate<'c>) -> Self {
        let bytes = BYTES.saturating_add((input as u64).saturating_mul(BYTES_FOR_EACH));
        Self { is_late, steps: STEPS, bytes, depth: 0, longest }
    }

    /// One step more.
    pub fn step(&mut self) -> Result<(), JinjaError> {
        self.steps(1)
    }

    /// So many bytes of text are looked at.
    pub fn look(&mut self, bytes: usize) -> Result<(), JinjaError> {
        self.steps(bytes as u64 / 64)
    }

    /// So many names are compared with another.
    pub fn names(&mut self, names: usize) -> Result<(), JinjaError> {
        self.steps((names / NAMES_A_STEP) as u64)
    }

    fn steps(&mut self, steps: u64) -> Result<(), JinjaError> {
        let left = self.steps.checked_sub(steps).ok_or(JinjaError::Limit("steps"))?;
        let looks = left / STEPS_A_LOOK != self.steps / STEPS_A_LOOK;
        self.steps = left;
        if looks && (self.is_late)() { Err(JinjaError::Limit("time")) } else { Ok(()) }
    }

    fn bytes(&mut self, bytes: u64) -> Result<(), JinjaError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(JinjaError::Limit("memory"))?;
        Ok(())
    }

    /// A text of so many bytes is about to be made.
    pub fn text(&mut self, bytes: usize) -> Result<(), JinjaError> {
        self.fits(bytes)?;
        self.scratch(bytes)
    }

    /// So many bytes are looked through, or made and soon forgotten.
    pub fn scratch(&mut self, bytes: usize) -> Result<(), JinjaError> {
        self.steps(bytes as u64 / 64)?;
        self.bytes(bytes as u64)
    }

    /// A text that is still being made has so many bytes already.
    pub const fn fits(&self, bytes: usize) -> Result<(), JinjaError> {
        if bytes > self.longest { Err(JinjaError::TooLong) } else { Ok(()) }
    }

    /// A list of so many items is about to be made or looked through.
    pub fn items(&mut self, items: usize) -> Result<(), JinjaError> {
        self.steps(items as u64)?;
        self.bytes((items as u64).saturating_mul(ITEM))
    }

    /// One tag or bracket deeper.
    pub const fn enter(&mut self) -> Result<(), JinjaError> {
        self.deeper(1)
    }

    /// Out of it again.
    pub const fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Into what is captured.
    pub const fn enter_captured(&mut self) -> Result<(), JinjaError> {
        self.deeper(CAPTURED)
    }

    /// Out of it again.
    pub const fn leave_captured(&mut self) {
        self.depth -= CAPTURED;
    }

    const fn deeper(&mut self, by: usize) -> Result<(), JinjaError> {
        self.depth += by;
        if self.depth > DEPTH { Err(JinjaError::Limit("depth")) } else { Ok(()) }
    }
}
