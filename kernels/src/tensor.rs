//! Tensors as a checkpoint stores them.

use half::{bf16, f16};

/// How a backend keeps weights. Widening either to f32 is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightKind {
    /// bfloat16, two bytes.
    Bf16,
    /// f32, four bytes; also what f16 weights become, exactly.
    F32,
}

/// The values of a tensor, in row-major order.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// IEEE single precision.
    F32(&'a [f32]),
}

impl Values<'_> {
    /// Number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value `index`, widened.
    #[must_use]
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Self::Bf16(values) => values[index].to_f32(),
            Self::F16(values) => values[index].to_f32(),
            Self::F32(values) => values[index],
        }
    }

    /// The smallest kind that holds them exactly.
    #[must_use]
    pub const fn kind(&self) -> WeightKind {
        match self {
            Self::Bf16(_) => WeightKind::Bf16,
            Self::F16(_) | Self::F32(_) => WeightKind::F32,
        }
    }
}

/// A matrix, `[rows, columns]` in row-major order: `rows` outputs of `columns` inputs, as linear layers are stored.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    rows: usize,
    columns: usize,
    values: Values<'a>,
}

impl<'a> MatrixView<'a> {
    /// # Panics
    /// If there are not `rows * columns` values.
    #[must_use]
    pub fn new(rows: usize, columns: usize, values: Values<'a>) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} rows and {columns} columns");
        Self { rows, columns, values }
    }

    /// Number of outputs.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// Its values.
    #[must_use]
    pub const fn values(&self) -> Values<'a> {
        self.values
    }
}
