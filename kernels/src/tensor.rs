//! Tensors as a checkpoint stores them, or as they are drawn.

use half::{bf16, f16};

use crate::drawn::Drawn;

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
    /// Nothing that is there: a device makes them where it needs them.
    Drawn {
        /// As what they are kept.
        kind: WeightKind,
        /// Parts of tensors, one after the other.
        parts: &'a [Drawn],
    },
}

impl Values<'_> {
    /// Number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::Drawn { parts, .. } => {
                let (mut len, mut part) = (0, 0);
                while part < parts.len() {
                    len += parts[part].len;
                    part += 1;
                }
                len
            }
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Value `index`, widened.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Self::Drawn { kind, parts } => {
                let mut index = index;
                let part = parts.iter().find(|part| {
                    let is_there = index < part.len;
                    index -= if is_there { 0 } else { part.len };
                    is_there
                });
                part.expect("a value that there is").get(index, *kind)
            }
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
            Self::Drawn { kind, .. } => *kind,
        }
    }

    /// Those that are drawn, if they are: some of them, from `first` on.
    pub(crate) fn drawn(&self, first: usize, len: usize) -> Option<Vec<Drawn>> {
        let Self::Drawn { parts, .. } = self else { return None };
        let (mut start, end) = (0, first + len);
        let mut found = Vec::with_capacity(parts.len());
        for part in *parts {
            let (from, to) = (first.max(start), end.min(start + part.len));
            if from < to {
                found.push(part.part(from - start, to - from));
            }
            start += part.len;
        }
        Some(found)
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
