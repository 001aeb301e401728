//! BM25 on tantivy's postings, with Lucene's formula: for each term of the query
//! `idf · tf / (tf + k1 · (1 - b + b · length / average length))`, `idf = ln(1 + (N - n + 0.5) / (n + 0.5))`. As in Lucene
//! a document's length is kept in one byte: exact up to 40 terms, then to about 6 %.
//!
//! tantivy's own scorer has k1 = 1.2 and b = 0.75 built in, so the sums are made here: over all postings of the query's
//! terms, into one sum for each document. No document is passed over, so the result is exact.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use tantivy::columnar::Column;
use tantivy::fieldnorm::FieldNormReader;
use tantivy::postings::Postings;
use tantivy::schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::{DocSet, SegmentReader, TERMINATED, TantivyDocument, Term};

use crate::analysis;
use crate::error::{Error, Result};
use crate::top::{Hit, Top};

/// k1 and b.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Parameters {
    /// How soon another occurrence of a term counts for little; 0: only whether it is there.
    pub k1: f32,
    /// How much long documents are held back, from 0 to 1.
    pub b: f32,
}

impl Default for Parameters {
    /// Those of most published baselines (Anserini's).
    fn default() -> Self {
        Self { k1: 0.9, b: 0.4 }
    }
}

impl Parameters {
    /// Refuses what is no parameter.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(self) -> Result<Self> {
        let Self { k1, b } = self;
        if !(k1.is_finite() && k1 >= 0.0) {
            return Err(Error::Option { name: "k1", found: f64::from(k1), expected: "0 or more" });
        }
        if !(0.0..=1.0).contains(&b) {
            return Err(Error::Option { name: "b", found: f64::from(b), expected: "from 0 to 1" });
        }
        Ok(self)
    }
}

const ANALYZER: &str = "english";
const TEXT: &str = "text";
const NUMBER: &str = "number";
/// What a thread of the writer holds before it writes a segment.
const BYTES_PER_WRITER: usize = 64 << 20;
/// More writers than this make segments, not speed.
const MOST_WRITERS: usize = 8;

/// Writes the postings of all texts into a new folder.
pub(crate) fn write<'a>(
    folder: &Path,
    texts: impl Iterator<Item = &'a str>,
    threads: usize,
    mut progress: impl FnMut(usize),
) -> Result<()> {
    let failed = |source| postings_error(folder, source);
    std::fs::create_dir(folder).map_err(|source| Error::Io { path: folder.to_path_buf(), source })?;
    let mut schema = Schema::builder();
    let indexing =
        TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
    let text = schema.add_text_field(TEXT, TextOptions::default().set_indexing_options(indexing));
    let number = schema.add_u64_field(NUMBER, FAST);
    let index = tantivy::Index::create_in_dir(folder, schema.build()).map_err(failed)?;
    index.tokenizers().register(ANALYZER, analysis::analyzer());
    let threads = threads.clamp(1, MOST_WRITERS);
    let mut writer = index.writer_with_num_threads(threads, threads * BYTES_PER_WRITER).map_err(failed)?;
    for (place, content) in texts.enumerate() {
        let mut document = TantivyDocument::new();
        document.add_text(text, content);
        document.add_u64(number, place as u64);
        writer.add_document(document).map_err(failed)?;
        progress(place + 1);
    }
    writer.commit().map_err(failed)?;
    writer.wait_merging_threads().map_err(failed)
}

fn postings_error(folder: &Path, source: tantivy::TantivyError) -> Error {
    Error::Postings { path: folder.to_path_buf(), source: Box::new(source) }
}

/// Postings, opened for searching.
pub(crate) struct Bm25 {
    folder: PathBuf,
    segments: Vec<Segment>,
    text: Field,
    documents: u64,
    average_length: f64,
}

struct Segment {
    reader: SegmentReader,
    /// The length of each document, in a byte.
    lengths: FieldNormReader,
    /// The place of each document in the collection.
    numbers: Column<u64>,
}

impl Bm25 {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let failed = |source| postings_error(folder, source);
        let index = tantivy::Index::open_in_dir(folder).map_err(failed)?;
        let text = index.schema().get_field(TEXT).map_err(failed)?;
        let (mut segments, mut documents, mut tokens) = (Vec::new(), 0, 0);
        // Not through tantivy's `IndexReader`, which writes a lock file: an index can lie where nothing can be written.
        for segment in index.searchable_segments().map_err(failed)? {
            let reader = SegmentReader::open(&segment).map_err(failed)?;
            documents += u64::from(reader.max_doc());
            tokens += reader.inverted_index(text).map_err(failed)?.total_num_tokens();
            let lengths = reader.get_fieldnorms_reader(text).map_err(failed)?;
            let numbers = reader.fast_fields().u64(NUMBER).map_err(failed)?;
            segments.push(Segment { reader, lengths, numbers });
        }
        let average_length = tokens as f64 / documents.max(1) as f64;
        Ok(Self { folder: folder.to_path_buf(), segments, text, documents, average_length })
    }

    pub(crate) fn documents(&self) -> u64 {
        self.documents
    }

    /// The best `k` documents for each query that share a term with it.
    pub(crate) fn search<Q: AsRef<str> + Sync>(
        &self,
        queries: &[Q],
        parameters: Parameters,
        k: usize,
        threads: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        let parameters = parameters.check()?;
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(query) = queries.get(number) else { return done };
                done.push((number, self.search_one(query.as_ref(), parameters, k)));
            }
        };
        let mut done: Vec<(usize, Result<Vec<Hit>>)> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..threads.clamp(1, queries.len().max(1))).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(crate::dense::join).collect()
        });
        done.sort_unstable_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, hits)| hits).collect()
    }

    fn search_one(&self, query: &str, Parameters { k1, b }: Parameters, k: usize) -> Result<Vec<Hit>> {
        let failed = |source| postings_error(&self.folder, source);
        let unreadable = |source| failed(tantivy::TantivyError::from(source));
        let terms: Vec<(Term, u32)> = analysis::terms(query)
            .into_iter()
            .map(|(term, count)| (Term::from_field_text(self.text, &term), count))
            .collect();
        let mut weights = vec![0.0_f32; terms.len()];
        for ((term, count), weight) in terms.iter().zip(&mut weights) {
            let mut having = 0;
            for segment in &self.segments {
                let postings = segment.reader.inverted_index(self.text).map_err(failed)?;
                having += u64::from(postings.doc_freq(term).map_err(unreadable)?);
            }
            let (all, having) = (self.documents as f64, having as f64);
            *weight = (f64::from(*count) * (1.0 + (all - having + 0.5) / (having + 0.5)).ln()) as f32;
        }
        // What a document of each length adds to the frequency of a term.
        let norms: Vec<f32> = (0..=u8::MAX)
            .map(|byte| {
                let length = f64::from(FieldNormReader::id_to_fieldnorm(byte)) / self.average_length;
                (f64::from(k1) * (1.0 - f64::from(b) + f64::from(b) * length)) as f32
            })
            .collect();
        let mut top = Top::new(k);
        for segment in &self.segments {
            let inverted = segment.reader.inverted_index(self.text).map_err(failed)?;
            let mut sums = vec![0.0_f32; segment.reader.max_doc() as usize];
            for ((term, _), weight) in terms.iter().zip(&weights) {
                let Some(mut postings) =
                    inverted.read_postings(term, IndexRecordOption::WithFreqs).map_err(unreadable)?
                else {
                    continue;
                };
                let mut document = postings.doc();
                while document != TERMINATED {
                    let frequency = postings.term_freq() as f32;
                    let norm = norms[usize::from(segment.lengths.fieldnorm_id(document))];
                    sums[document as usize] += weight * (frequency / (frequency + norm));
                    document = postings.advance();
                }
            }
            for (document, &score) in (0..).zip(&sums) {
                if score > 0.0 && top.takes(score) {
                    let number = segment.numbers.first(document).unwrap_or(u64::MAX);
                    if number >= self.documents {
                        let problem = format!("a document has the number {number} of {}", self.documents);
                        return Err(Error::Damaged { path: self.folder.clone(), problem });
                    }
                    top.offer(Hit { document: number as u32, score });
                }
            }
        }
        Ok(top.into_sorted())
    }
}
