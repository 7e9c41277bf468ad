//! What rendering may cost: steps, bytes made on the way, and the length of what comes out. A template that runs away
//! ends in bounded time and memory.

use super::JinjaError;

/// Nodes evaluated and items touched; some seconds' worth at the very most.
const STEPS: u64 = 10_000_000;
/// Bytes of text and lists made on the way, for whatever input and for each of its bytes.
const BYTES: u64 = 128 << 20;
const BYTES_FOR_EACH: u64 = 64;
/// What an item of a list takes, about.
const ITEM: u64 = 48;
/// Calls and brackets that may lie in one another while rendering: each takes some of the thread's stack.
const DEPTH: usize = 320;
/// A macro, or a block that is captured, counts as so many: it takes as much of the stack.
const CAPTURED: usize = 6;

/// What is left to spend.
#[derive(Debug)]
pub(super) struct Budget {
    steps: u64,
    bytes: u64,
    depth: usize,
    /// Bytes that any one text may have.
    longest: usize,
}

impl Budget {
    /// For an input of so many bytes and an output of at most `longest`.
    pub const fn new(input: usize, longest: usize) -> Self {
        let bytes = BYTES.saturating_add((input as u64).saturating_mul(BYTES_FOR_EACH));
        Self { steps: STEPS, bytes, depth: 0, longest }
    }

    /// One step more.
    pub fn step(&mut self) -> Result<(), JinjaError> {
        self.steps(1)
    }

    /// So many bytes of text are looked at.
    pub fn look(&mut self, bytes: usize) -> Result<(), JinjaError> {
        self.steps(bytes as u64 / 64)
    }

    fn steps(&mut self, steps: u64) -> Result<(), JinjaError> {
        self.steps = self.steps.checked_sub(steps).ok_or(JinjaError::Limit("steps"))?;
        Ok(())
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
