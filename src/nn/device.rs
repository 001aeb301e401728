//! Where layers run. A [`Matrix`] holds its values itself, for the CPU's kernels, or is the name of values on a device; every
//! operation of this module looks at which, and does the same there. Model files do not know.

use std::cell::RefCell;
use std::sync::Arc;

use jointly_cuda::{Device, Failure, Format, Function, TILE, Tensor, Tile};
use jointly_kernels::{Precision, Values};

use super::{Activation, AttentionShape, Mask, Matrix};
use crate::batch::{Batch, Read};
use crate::error::{Error, Result};

/// A batch on a device: what its operations need to know of where pairs are.
#[derive(Debug)]
pub struct OnDevice {
    device: Arc<Device>,
    /// By what is read; attention asks once a layer.
    tiles: RefCell<Vec<(Read, Tensor)>>,
}

impl OnDevice {
    /// Of one batch, whichever it will be.
    pub(crate) fn new(device: Arc<Device>) -> Self {
        Self { device, tiles: RefCell::default() }
    }

    /// The device.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The queries that are `read`, in portions.
    pub(super) fn tiles(&self, batch: &Batch, read: Read) -> Tensor {
        let mut known = self.tiles.borrow_mut();
        if let Some((_, tiles)) = known.iter().find(|(known, _)| *known == read) {
            return tiles.clone();
        }
        let tiles = self.device.tiles(&tiles(batch, read));
        known.push((read, tiles.clone()));
        tiles
    }
}

/// The queries of a batch that are read, in portions of one pair each.
fn tiles(batch: &Batch, read: Read) -> Vec<Tile> {
    let number = |value: usize| value as i32;
    let mut tiles = Vec::new();
    let mut query = 0; // among the rows that are read
    for sequence in batch.sequences() {
        let wanted = batch.own_rows(&sequence, read);
        for first in wanted.clone().step_by(TILE) {
            tiles.push(Tile {
                shared_start: number(sequence.shared.start),
                shared_count: number(sequence.shared.len()),
                start: number(sequence.rows.start),
                count: number(sequence.rows.len()),
                query: number(query + first - wanted.start),
                position: number(first),
                queries: number((wanted.end - first).min(TILE)),
                unused: 0,
            });
        }
        query += wanted.len();
    }
    tiles
}

/// The number format of a device for a precision. Devices have no int8 here; it is refused before.
pub(crate) fn format(precision: Precision) -> Format {
    match precision {
        Precision::F32 | Precision::Int8 => Format::F32,
        Precision::Bf16 => Format::Bf16,
        Precision::F16 => Format::F16,
    }
}

/// Values that are to stay on a device.
pub(crate) fn load_values(device: &Arc<Device>, values: &[f32]) -> Result<Tensor> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    loaded(device, device.load([1, values.len()], Format::F32, &[&bytes]))
}

/// What a load gave, or why it did not.
pub(crate) fn loaded<T>(device: &Device, result: std::result::Result<T, Failure>) -> Result<T> {
    result.map_err(|failure| Error::of_device(device.name(), failure))
}

impl Activation {
    /// The same on a device.
    pub(super) fn on_device(self) -> Function {
        match self {
            Self::Identity => Function::Identity,
            Self::Gelu => Function::Gelu,
            Self::GeluTanh => Function::GeluTanh,
            Self::Silu => Function::Silu,
            Self::Relu => Function::Relu,
            Self::Tanh => Function::Tanh,
            Self::Sigmoid => Function::Sigmoid,
        }
    }
}

impl AttentionShape {
    /// The same on a device.
    pub(super) fn on_device(&self) -> jointly_cuda::Shape {
        let Self { heads, kv_heads, head_dim, scale, mask } = *self;
        let mask = match mask {
            Mask::Full => jointly_cuda::Mask::Full,
            Mask::Causal => jointly_cuda::Mask::Causal,
            Mask::Window(reach) => jointly_cuda::Mask::Window(reach),
        };
        jointly_cuda::Shape { heads, kv_heads, head_dim, scale, mask }
    }
}

impl Matrix {
    /// Values on a device.
    pub(super) fn of_tensor(tensor: Tensor) -> Self {
        Self { data: Values::new(), rows: tensor.rows(), cols: tensor.cols(), device: Some(tensor) }
    }

    /// The same values on a device; where they are, if they are on one.
    #[must_use]
    pub fn to_device(&self, device: &Arc<Device>) -> Self {
        Self::of_tensor(self.tensor_on(device))
    }

    /// What it is on a device.
    pub(crate) fn tensor(&self) -> Option<&Tensor> {
        self.device.as_ref()
    }

    pub(super) fn tensor_on(&self, device: &Arc<Device>) -> Tensor {
        match &self.device {
            Some(tensor) => tensor.clone(),
            None => device.upload([self.rows, self.cols], &self.data),
        }
    }

    /// On a device: the mean, or the largest value, of each feature over the rows from each of `starts` to the next. Elsewhere
    /// nothing.
    pub(crate) fn pooled(&self, starts: &[usize], takes_largest: bool) -> Self {
        let starts: Vec<u32> = starts.iter().map(|start| *start as u32).collect();
        self.device
            .as_ref()
            .map(|tensor| Self::of_tensor(tensor.pool(&starts, takes_largest)))
            .unwrap_or_default()
    }

    /// The same values in this process's memory. From a device they are fetched, when it has computed them.
    #[must_use]
    pub fn into_host(self) -> Self {
        match &self.device {
            None => self,
            Some(tensor) => Self::new(tensor.download(), self.rows, self.cols),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Prefix;
    use crate::text::EncodedPair;

    #[test]
    fn tiles_name_every_query_once() {
        let pair = |length: usize| EncodedPair {
            input_ids: vec![1; length],
            token_type_ids: vec![0; length],
            ..EncodedPair::default()
        };
        let (long, short) = (pair(150), pair(71));
        let prefix = Prefix { group: 0, tokens: 70 };
        let batch =
            Batch::pack_shared([(&long, prefix), (&short, prefix), (&long, Prefix { group: 1, tokens: 0 })]);
        let found = tiles(&batch, Read::All);
        let of = |tile: &Tile| {
            (tile.shared_count, tile.start, tile.count, tile.query, tile.position, tile.queries)
        };
        let wanted = [
            (0, 0, 150, 0, 0, 64),
            (0, 0, 150, 64, 64, 64),
            (0, 0, 150, 128, 128, 22),
            (70, 150, 1, 150, 70, 1),
            (0, 151, 150, 151, 0, 64),
            (0, 151, 150, 215, 64, 64),
            (0, 151, 150, 279, 128, 22),
        ];
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), wanted);
        let last: Vec<_> = tiles(&batch, Read::Last).iter().map(of).collect();
        assert_eq!(last, [(0, 0, 150, 0, 149, 1), (70, 150, 1, 1, 70, 1), (0, 151, 150, 2, 149, 1)]);
    }
}
