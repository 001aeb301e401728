//! Products by cuBLASLt, whose matrices are column-major: ours, read that way, are their own transposes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasLtMatmulDescAttributes_t as DescAttribute};
use cudarc::driver::result as driver;
use cudarc::driver::sys::CUstream;

use crate::backend::{Failure, FailureKind, Format, Operand, Product};

/// What NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// `CUBLAS_OP_T`
const TRANSPOSED: i32 = 1;

/// A matrix as cuBLASLt sees it: `rows` lie together, columns `stride` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    format: Format,
    rows: usize,
    columns: usize,
    stride: usize,
    batch_stride: usize,
}

/// `d = op(a) . b`, with `a` transposed: what a [`Product`] is in columns. `out' = w . x'`, and `w` as it lies is `k` values
/// together, `n` columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Columns {
    a: Layout,
    b: Layout,
    d: Layout,
}

fn columns(product: &Product) -> Columns {
    let layout = |operand: Operand, rows, columns| Layout {
        format: operand.format,
        rows,
        columns,
        stride: operand.stride,
        batch_stride: operand.batch_stride,
    };
    let Product { m, n, k, .. } = *product;
    Columns { a: layout(product.w, k, n), b: layout(product.x, k, m), d: layout(product.out, n, m) }
}

/// Products that are alike in all but their addresses.
type Key = Product;

fn key(product: &Product) -> Key {
    let nowhere = |operand: Operand| Operand { address: 0, ..operand };
    Product {
        x: nowhere(product.x),
        w: nowhere(product.w),
        out: nowhere(product.out),
        bias: product.bias.map(|_| 0),
        residual: product.residual.map(|_| 0),
        ..*product
    }
}

/// How cuBLASLt does products of one kind.
struct Plan {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// The library, opened for a stream.
pub(crate) struct Lt {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    stream: CUstream,
    /// None: it has no algorithm for these.
    plans: Mutex<HashMap<Key, Option<Plan>>>,
}

fn failure(error: CublasError, what: &str) -> Failure {
    // A lost device shows here as an execution that failed; the driver says so at the next call too.
    let kind = match error.0 {
        sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => FailureKind::Memory,
        sys::cublasStatus_t::CUBLAS_STATUS_EXECUTION_FAILED => FailureKind::Lost,
        _ => FailureKind::Other,
    };
    Failure { kind, problem: format!("cuBLASLt, {what}: {error}") }
}

fn data_type(format: Format) -> sys::cudaDataType {
    match format {
        Format::F32 => sys::cudaDataType::CUDA_R_32F,
        Format::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Format::F16 => sys::cudaDataType::CUDA_R_16F,
    }
}

impl Lt {
    /// For a stream of the context that this thread is in.
    pub fn new(stream: CUstream) -> Result<Self, Failure> {
        let handle = result::create_handle().map_err(|error| failure(error, "opening it"))?;
        // SAFETY: used by products of this stream alone, and freed after the last.
        let workspace = unsafe { driver::malloc_async(stream, WORKSPACE) }.map_err(|error| Failure {
            kind: FailureKind::Memory,
            problem: format!("allocating the {WORKSPACE} bytes that cuBLASLt works in: {error}"),
        })?;
        Ok(Self { handle, workspace, stream, plans: Mutex::default() })
    }

    /// False if there is no algorithm for it.
    pub fn multiply(&self, product: &Product) -> Result<bool, Failure> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.entry(key(product)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.plan(product)?),
        };
        let Some(plan) = plan else { return Ok(false) };
        if let Some(bias) = product.bias {
            set(plan.operation, DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
        }
        let one = 1.0_f32;
        let of_residual = if product.residual.is_some() { 1.0_f32 } else { 0.0 };
        let [a, b, d] = plan.layouts;
        let pointer = |address: u64| address as *const c_void;
        // SAFETY: the plan was made for operands of these shapes, which the operations have allocated; the handle, the stream and
        // the workspace live as long as this, and the factors are read by the call.
        unsafe {
            result::matmul(
                self.handle,
                plan.operation,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&of_residual).cast(),
                pointer(product.w.address),
                a,
                pointer(product.x.address),
                b,
                pointer(product.residual.unwrap_or(product.out.address)),
                d,
                product.out.address as *mut c_void,
                d,
                &plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                self.stream.cast(),
            )
        }
        .map_err(|error| failure(error, &format!("multiplying {product:?}")))?;
        Ok(true)
    }

    /// The fastest way that the library knows, by its own account.
    fn plan(&self, product: &Product) -> Result<Option<Plan>, Failure> {
        let tried = |what| move |error| failure(error, what);
        let Columns { a, b, d } = columns(product);
        let operation = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        )
        .map_err(tried("describing a product"))?;
        set(operation, DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        if let Some(bias) = product.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            set(operation, DescAttribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            set(operation, DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias)?;
            let bias_type = data_type(product.out.format) as i32;
            set(operation, DescAttribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type)?;
        }
        let [a, b, d] = [a, b, d].map(|layout| self.layout(layout, product.batch));
        let layouts = [a?, b?, d?];
        let preference = result::create_matmul_pref().map_err(tried("stating a preference"))?;
        // SAFETY: the descriptions were just made and outlive the calls; the attribute is a number of that size.
        let found = unsafe {
            let attribute =
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            let bytes = std::ptr::from_ref(&WORKSPACE).cast();
            result::set_matmul_pref_attribute(preference, attribute, bytes, size_of::<usize>())
                .map_err(tried("stating a preference"))?;
            let [a, b, d] = layouts;
            let found = result::get_matmul_algo_heuristic(self.handle, operation, a, b, d, d, preference);
            _ = result::destroy_matmul_pref(preference);
            found
        };
        match found {
            Ok(found) => Ok(Some(Plan { operation, layouts, algorithm: found.algo })),
            Err(CublasError(
                sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED
                | sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE,
            )) => {
                destroy(operation, layouts);
                Ok(None)
            }
            Err(error) => Err(failure(error, "choosing an algorithm")),
        }
    }

    fn layout(&self, layout: Layout, batch: usize) -> Result<sys::cublasLtMatrixLayout_t, Failure> {
        use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let tried = |error| failure(error, "describing a matrix");
        let Layout { format, rows, columns, stride, batch_stride } = layout;
        let made =
            result::create_matrix_layout(data_type(format), rows as u64, columns as u64, stride as i64)
                .map_err(tried)?;
        if batch > 1 {
            let (count, offset) = (batch as i32, batch_stride as i64);
            // SAFETY: the description was just made; the attributes are numbers of these sizes.
            unsafe {
                let attribute = Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
                result::set_matrix_layout_attribute(made, attribute, std::ptr::from_ref(&count).cast(), 4)
                    .map_err(tried)?;
                let attribute = Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
                result::set_matrix_layout_attribute(made, attribute, std::ptr::from_ref(&offset).cast(), 8)
                    .map_err(tried)?;
            }
        }
        Ok(made)
    }

    /// Gives everything back; nothing is multiplied after this.
    pub fn close(&mut self) {
        let plans = self.plans.get_mut().unwrap_or_else(PoisonError::into_inner);
        plans.drain().filter_map(|(_, plan)| plan).for_each(|plan| destroy(plan.operation, plan.layouts));
        // SAFETY: both were made with this, and the stream has done its work.
        unsafe {
            _ = driver::free_async(self.workspace, self.stream);
            _ = result::destroy_handle(self.handle);
        }
    }
}

fn set<T>(operation: sys::cublasLtMatmulDesc_t, attribute: DescAttribute, value: &T) -> Result<(), Failure> {
    // SAFETY: the description is alive, and the value is read by the call.
    unsafe {
        result::set_matmul_desc_attribute(
            operation,
            attribute,
            std::ptr::from_ref(value).cast(),
            size_of::<T>(),
        )
    }
    .map_err(|error| failure(error, "describing a product"))
}

fn destroy(operation: sys::cublasLtMatmulDesc_t, layouts: [sys::cublasLtMatrixLayout_t; 3]) {
    // SAFETY: they were made with the plan, and nobody else has them.
    unsafe {
        layouts.into_iter().for_each(|layout| _ = result::destroy_matrix_layout(layout));
        _ = result::destroy_matmul_desc(operation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cuBLASLt does with layouts, by its documentation: element (row, column) lies at `row + column * stride`.
    fn multiply(columns: &Columns, batch: usize, (a, b): (&[i64], &[i64]), d: &mut [i64]) {
        let at = |layout: &Layout, batch: usize, row: usize, column: usize| {
            assert!(row < layout.rows && column < layout.columns && layout.stride >= layout.rows);
            batch * layout.batch_stride + row + column * layout.stride
        };
        for batch in 0..batch {
            for row in 0..columns.d.rows {
                for column in 0..columns.d.columns {
                    // a is transposed, b is not.
                    d[at(&columns.d, batch, row, column)] = (0..columns.a.rows)
                        .map(|k| a[at(&columns.a, batch, k, row)] * b[at(&columns.b, batch, k, column)])
                        .sum();
                }
            }
        }
    }

    #[test]
    fn rows_are_columns_of_the_transpose() {
        let operand =
            |stride, batch_stride| Operand { address: 0, format: Format::Bf16, stride, batch_stride };
        // Three heads of two values side by side in rows of seven, times a table by head, side by side again: as DeBERTa does.
        let product = Product {
            m: 4,
            n: 5,
            k: 2,
            batch: 3,
            x: operand(7, 2),
            w: operand(6, 2),
            out: operand(15, 5),
            bias: None,
            residual: None,
        };
        let (x, w): (Vec<i64>, Vec<i64>) =
            ((0..28).map(|i| i * i % 17).collect(), (0..30).map(|i| 3 * i % 11 - 5).collect());
        let mut found = vec![0; 60];
        multiply(&columns(&product), 3, (&w, &x), &mut found);
        let mut wanted = vec![0; 60];
        for (batch, row, column) in
            (0..3).flat_map(|b| (0..4).flat_map(move |r| (0..5).map(move |c| (b, r, c))))
        {
            wanted[row * 15 + batch * 5 + column] =
                (0..2).map(|k| x[row * 7 + batch * 2 + k] * w[column * 6 + batch * 2 + k]).sum();
        }
        assert_eq!(found, wanted);
    }

    #[test]
    fn products_are_alike_whose_addresses_differ() {
        let operand = |address| Operand { address, format: Format::F16, stride: 8, batch_stride: 0 };
        let product = |address, bias| Product {
            m: 1,
            n: 8,
            k: 8,
            batch: 1,
            x: operand(address),
            w: operand(2 * address),
            out: operand(3 * address),
            bias,
            residual: None,
        };
        assert_eq!(key(&product(256, Some(512))), key(&product(1024, Some(768))));
        assert_ne!(key(&product(256, Some(512))), key(&product(256, None)));
    }
}
