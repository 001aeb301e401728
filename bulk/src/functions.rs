//! The functions that SQL gets. Each takes a query and a document.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float32Array, StringArray, StringViewArray, StructArray, UInt32Array,
    UInt64Array,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::plan_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use jointly::Score;

use crate::engine::{Engine, Problem, Scoring};
use crate::error::Fault;

/// What a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `rerank`: a struct of all there is.
    All,
    /// `rerank_logit`: what the head gave. Sort on this.
    Logit,
    /// `rerank_score`: on the scale of the model's authors.
    Score,
    /// `rerank_probability`: of a calibrated model.
    Probability,
    /// `rerank_span`: the part of the document that scores best, as a struct.
    Span,
}

impl Kind {
    /// Every function.
    pub const ALL: [Self; 5] = [Self::All, Self::Logit, Self::Score, Self::Probability, Self::Span];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "rerank",
            Self::Logit => "rerank_logit",
            Self::Score => "rerank_score",
            Self::Probability => "rerank_probability",
            Self::Span => "rerank_span",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::All => DataType::Struct(column_fields()),
            Self::Logit | Self::Score | Self::Probability => DataType::Float32,
            Self::Span => DataType::Struct(span_fields()),
        }
    }
}

/// The functions, as a process with this engine has them. Without one they can be planned, not run.
pub fn functions(engine: Option<&Arc<Engine>>) -> Vec<Arc<ScalarUDF>> {
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let signature = Signature::any(2, Volatility::Immutable);
            Arc::new(ScalarUDF::from(Rerank { kind, signature, engine: engine.cloned() }))
        })
        .collect()
}

#[derive(Debug)]
struct Rerank {
    kind: Kind,
    signature: Signature,
    engine: Option<Arc<Engine>>,
}

// There is one engine in a process.
impl PartialEq for Rerank {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Rerank {}

impl Hash for Rerank {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

impl ScalarUDFImpl for Rerank {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.data_type())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let name = self.name();
        for (field, what) in args.arg_fields.iter().zip(["query", "document"]) {
            if !is_text(field.data_type()) {
                let (column, found) = (field.name(), field.data_type());
                return plan_err!(
                    "{name}: column {column} is {found}, and a {what} is text: CAST({column} AS VARCHAR) makes it so"
                );
            }
        }
        Ok(Arc::new(Field::new(name, self.kind.data_type(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = self.name();
        let Some(engine) = &self.engine else {
            let message = format!(
                "{name}: there is no model in this process: jointly-executor and jointly-sql have one"
            );
            return Err(Fault::failed(message).into());
        };
        let default = Scoring::default();
        let scoring = args.config_options.extensions.get::<Scoring>().unwrap_or(&default);
        engine.check(scoring)?;
        if self.kind == Kind::Probability && engine.model().calibration().is_none() {
            let model = &engine.model().info().source;
            let message = format!("{name}: {model} has no calibration: `jointly calibrate` makes one");
            return Err(Fault::input(message).into());
        }
        let [queries, documents] = [text(&args, 0)?, text(&args, 1)?];
        let options = scoring.options(self.kind == Kind::Span);
        let column = |index: usize| args.arg_fields.get(index).map_or("", |field| field.name().as_str());
        let scores = engine
            .scores(&queries, &documents, &options)
            .map_err(|problem| fault(problem, [column(0), column(1)]))?;
        Ok(ColumnarValue::Array(match self.kind {
            Kind::All => all(&scores)?,
            Kind::Logit => floats(&scores, |score| Some(score.logit)),
            Kind::Score => floats(&scores, |score| Some(score.score)),
            Kind::Probability => floats(&scores, |score| score.probability),
            Kind::Span => spans(&scores, &documents)?,
        }))
    }
}

/// Null counts as text: what is wrong with it is said of a row.
fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// An argument as text, whichever way Arrow holds it.
fn text(args: &ScalarFunctionArgs, index: usize) -> Result<StringViewArray> {
    let Some(argument) = args.args.get(index) else { return plan_err!("a query and a document are needed") };
    let array = argument.to_array(args.number_rows)?;
    Ok(as_text(&array)?)
}

/// A column as text, whichever way Arrow holds it.
///
/// # Errors
/// If it is not text.
pub fn as_text(
    array: &ArrayRef,
) -> std::result::Result<StringViewArray, datafusion::arrow::error::ArrowError> {
    Ok(cast(array, &DataType::Utf8View)?.as_string_view().clone())
}

/// What is wrong with a row, said of its columns: query and document.
pub fn fault(problem: Problem, [query, document]: [&str; 2]) -> Fault {
    match problem {
        Problem::NullQuery(_) => {
            let hint = format!("WHERE {query} IS NOT NULL leaves such rows out");
            Fault {
                column: Some(query.to_string()),
                ..Fault::input(format!("column {query} is null: {hint}"))
            }
        }
        Problem::Row(_, jointly::Error::EmptyQuery) => {
            let hint = format!("WHERE trim({query}) <> '' leaves such rows out");
            Fault {
                column: Some(query.to_string()),
                ..Fault::input(format!("column {query} is empty: {hint}"))
            }
        }
        Problem::Row(_, error) => {
            let message = format!("columns {query} and {document}: {error}");
            Fault { is_input: error.kind() == jointly::ErrorKind::Input, ..Fault::failed(message) }
        }
        Problem::All(error) => {
            Fault { is_input: error.kind() == jointly::ErrorKind::Input, ..Fault::failed(error.to_string()) }
        }
    }
}

fn floats(scores: &[Option<Score>], value: impl Fn(&Score) -> Option<f32>) -> ArrayRef {
    Arc::new(scores.iter().map(|score| score.as_ref().and_then(&value)).collect::<Float32Array>())
}

/// The names and types of [`columns`].
pub fn column_fields() -> Fields {
    Fields::from(vec![
        Field::new("logit", DataType::Float32, true),
        Field::new("score", DataType::Float32, true),
        Field::new("probability", DataType::Float32, true),
        Field::new("tokens", DataType::UInt32, true),
        Field::new("truncated", DataType::Boolean, true),
        Field::new("windows", DataType::UInt32, true),
        Field::new("span_start", DataType::UInt64, true),
        Field::new("span_end", DataType::UInt64, true),
    ])
}

fn all(scores: &[Option<Score>]) -> Result<ArrayRef> {
    let arrays = columns(scores);
    let nulls: NullBuffer = scores.iter().map(Option::is_some).collect::<Vec<_>>().into();
    Ok(Arc::new(StructArray::try_new(column_fields(), arrays, Some(nulls))?))
}

/// The values of scores, as the columns of `rerank`.
pub fn columns(scores: &[Option<Score>]) -> Vec<ArrayRef> {
    let counts = |value: fn(&Score) -> usize| -> ArrayRef {
        let counts = scores.iter().map(|score| score.as_ref().map(|score| value(score) as u32));
        Arc::new(counts.collect::<UInt32Array>())
    };
    let span = |value: fn(&std::ops::Range<usize>) -> usize| -> ArrayRef {
        let places = scores.iter().map(|score| Some(value(score.as_ref()?.span.as_ref()?) as u64));
        Arc::new(places.collect::<UInt64Array>())
    };
    let truncated: BooleanArray =
        scores.iter().map(|score| score.as_ref().map(|score| score.truncated)).collect();
    vec![
        floats(scores, |score| Some(score.logit)),
        floats(scores, |score| Some(score.score)),
        floats(scores, |score| score.probability),
        counts(|score| score.tokens),
        Arc::new(truncated),
        counts(|score| score.windows),
        span(|span| span.start),
        span(|span| span.end),
    ]
}

fn span_fields() -> Fields {
    Fields::from(vec![
        Field::new("start", DataType::UInt64, true),
        Field::new("end", DataType::UInt64, true),
        Field::new("text", DataType::Utf8, true),
    ])
}

/// Start and end in code points, as everywhere, and the text between them.
fn spans(scores: &[Option<Score>], documents: &StringViewArray) -> Result<ArrayRef> {
    let span = |row: usize| scores[row].as_ref().and_then(|score| score.span.clone());
    let rows = 0..scores.len();
    let starts: UInt64Array = rows.clone().map(|row| span(row).map(|span| span.start as u64)).collect();
    let ends: UInt64Array = rows.clone().map(|row| span(row).map(|span| span.end as u64)).collect();
    let texts: StringArray = rows.clone().map(|row| Some(part(documents.value(row), span(row)?))).collect();
    let nulls: NullBuffer = rows.map(|row| span(row).is_some()).collect::<Vec<_>>().into();
    let arrays: Vec<ArrayRef> = vec![Arc::new(starts), Arc::new(ends), Arc::new(texts)];
    Ok(Arc::new(StructArray::try_new(span_fields(), arrays, Some(nulls))?))
}

/// The code points of a text from one place to another.
fn part(text: &str, span: std::ops::Range<usize>) -> &str {
    let place = |point: usize| text.char_indices().nth(point).map_or(text.len(), |(byte, _)| byte);
    text.get(place(span.start)..place(span.end)).unwrap_or("")
}

/// Registers the functions where SQL is planned.
///
/// # Errors
/// If the registry refuses them.
pub fn register(
    registry: &mut dyn datafusion::execution::FunctionRegistry,
    engine: Option<&Arc<Engine>>,
) -> std::result::Result<(), DataFusionError> {
    functions(engine).into_iter().try_for_each(|function| registry.register_udf(function).map(drop))
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_are_counted_in_code_points() {
        assert_eq!(part("äbç", 1..3), "bç");
        assert_eq!(part("äbç", 0..9), "äbç");
        assert_eq!(part("", 0..0), "");
        assert_eq!(part("abc", 5..9), "");
    }
}
