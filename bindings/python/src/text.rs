//! Texts that come from Python, without copying them: the UTF-8 that a `str` keeps, or the bytes of an Arrow column.

use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::errors::Kind;

/// A length that a caller's object states is memory taken up to here; beyond it the object must have the items too.
const MOST_BELIEVED: usize = 1 << 20;

/// A column of texts as Arrow lays it out: for each chunk the offsets and the bytes.
#[pyclass(frozen, module = "jointly._native")]
pub struct TextColumn {
    chunks: Vec<Chunk>,
}

type Chunk = (Py<PyArray1<i64>>, Py<PyArray1<u8>>);

#[pymethods]
impl TextColumn {
    /// Text `i` of a chunk is the bytes from its offset `i` to its offset `i + 1`.
    #[new]
    fn new(chunks: Vec<Chunk>) -> Self {
        Self { chunks }
    }
}

/// Texts, borrowed from Python.
pub enum Texts<'py> {
    /// One for all pairs.
    One(PyBackedStr),
    Each(Vec<PyBackedStr>),
    Column(Vec<(PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, u8>)>),
}

impl<'py> Texts<'py> {
    /// Reads a list of texts, or a column. `what` says in messages what they are ("document").
    ///
    /// # Errors
    /// `InputError`, with the index of the first that is no text.
    pub fn read(value: &Bound<'py, PyAny>, what: &str) -> PyResult<Self> {
        let py = value.py();
        if let Ok(column) = value.cast::<TextColumn>() {
            let chunks = column.get().chunks.iter();
            let readonly = |(offsets, bytes): &Chunk| -> PyResult<_> {
                Ok((offsets.bind(py).try_readonly()?, bytes.bind(py).try_readonly()?))
            };
            return Ok(Self::Column(chunks.map(readonly).collect::<PyResult<_>>()?));
        }
        if value.is_instance_of::<PyString>() {
            return Err(Kind::Input.error(
                py,
                format!("one {what} is given where a list of texts is needed"),
                None,
            ));
        }
        let items = value.try_iter().map_err(|_| {
            let found = type_name(value);
            Kind::Input.error(
                py,
                format!("a list of texts is needed, one for each {what}; this is {found}"),
                None,
            )
        })?;
        let mut texts = Vec::with_capacity(value.len().unwrap_or(0).min(MOST_BELIEVED));
        for (index, item) in items.enumerate() {
            texts.push(text(&item?, what, Some(index))?);
        }
        Ok(Self::Each(texts))
    }

    /// As [`Texts::read`]; one text stands for all.
    pub fn read_or_one(value: &Bound<'py, PyAny>, what: &str) -> PyResult<Self> {
        if value.is_instance_of::<PyString>() {
            return Ok(Self::One(text(value, what, None)?));
        }
        Self::read(value, what)
    }

    /// Every text, in order; one for all is there once.
    ///
    /// # Errors
    /// `InputError` for offsets that lead outside of the bytes, and for bytes that are not UTF-8.
    pub fn views(&self, py: Python<'_>, what: &str) -> PyResult<Vec<&str>> {
        match self {
            Self::One(text) => Ok(vec![&**text]),
            Self::Each(texts) => Ok(texts.iter().map(|text| &**text).collect()),
            Self::Column(chunks) => {
                let mut views = Vec::new();
                for (offsets, bytes) in chunks {
                    let (offsets, bytes) = (offsets.as_slice()?, bytes.as_slice()?);
                    for ends in offsets.windows(2) {
                        let range = usize::try_from(ends[0]).ok().zip(usize::try_from(ends[1]).ok());
                        let view =
                            range.and_then(|(start, end)| std::str::from_utf8(bytes.get(start..end)?).ok());
                        let index = views.len();
                        views.push(view.ok_or_else(|| {
                            Kind::Input.error(
                                py,
                                format!("{what} {index}: its bytes are no UTF-8 text"),
                                Some(index),
                            )
                        })?);
                    }
                }
                Ok(views)
            }
        }
    }
}

/// One text.
///
/// # Errors
/// `InputError`.
pub fn text(value: &Bound<'_, PyAny>, what: &str, index: Option<usize>) -> PyResult<PyBackedStr> {
    let py = value.py();
    let of = index.map_or_else(|| format!("the {what}"), |index| format!("{what} {index}"));
    if !value.is_instance_of::<PyString>() {
        let found = type_name(value);
        return Err(Kind::Input.error(py, format!("{of} is {found}; a text is needed"), index));
    }
    value.extract::<PyBackedStr>().map_err(|_| {
        let problem = format!("{of} has half of a surrogate pair, which is no character");
        Kind::Input.error(py, problem, index)
    })
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    if value.is_none() {
        return "None".into();
    }
    value.get_type().name().map_or_else(|_| "something else".into(), |name| name.to_string())
}
