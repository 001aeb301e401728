//! A case of several named files, as one string of bytes that a fuzzer can cut, join and change:
//! `name LF content`, one file after another, with the byte [`END`] between them.

use std::collections::BTreeMap;

use crate::json;

/// Ends a file. ASCII's record separator, which no file that we read has a use for.
pub const END: u8 = 0x1e;
/// Ends the JSON header of a binary file (see [`framed`]). ASCII's unit separator.
pub const END_OF_HEADER: u8 = 0x1f;

/// The files of a case; the last one of a name counts.
pub fn files(data: &[u8]) -> BTreeMap<String, &[u8]> {
    data.split(|byte| *byte == END)
        .filter_map(|file| {
            let end = file.iter().position(|byte| *byte == b'\n')?;
            Some((String::from_utf8(file[..end].to_vec()).ok()?, &file[end + 1..]))
        })
        .collect()
}

/// A safetensors file from what a case writes for it: `{header} END_OF_HEADER data` gets the header's length put in
/// front, since a fuzzer finds no file whose first eight bytes count the header; anything else stays as it is.
pub fn framed(content: &[u8]) -> Vec<u8> {
    let header_end = content.iter().position(|byte| *byte == END_OF_HEADER);
    match header_end.filter(|_| content.starts_with(b"{")) {
        Some(end) => [&(end as u64).to_le_bytes()[..], &content[..end], &content[end + 1..]].concat(),
        None => content.to_vec(),
    }
}

/// Changes a case of `size` bytes in `data` in place, and gives its new size. Half of the time a value of some JSON
/// file is changed, so that the file stays JSON; else libFuzzer changes bytes.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let bytes = |data: &mut [u8]| libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    if seed.is_multiple_of(2) {
        return bytes(data);
    }
    let mut random = json::Random::new(seed);
    let Some((start, end)) = json_range(&data[..size], &mut random) else { return bytes(data) };
    let Some(changed) = json::mutate(&data[start..end], &mut random) else { return bytes(data) };
    let whole = [&data[..start], &changed, &data[end..size]].concat();
    if whole.len() > max_size {
        return bytes(data);
    }
    data[..whole.len()].copy_from_slice(&whole);
    whole.len()
}

/// Where some file of the case, or the header of one, is JSON.
fn json_range(data: &[u8], random: &mut json::Random) -> Option<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for file in data.split(|byte| *byte == END) {
        if let Some(name_end) = file.iter().position(|byte| *byte == b'\n') {
            let content = &file[name_end + 1..];
            let end = content.iter().position(|byte| *byte == END_OF_HEADER).unwrap_or(content.len());
            if content[..end].first().is_some_and(|first| b"{[".contains(first)) {
                ranges.push((start + name_end + 1, start + name_end + 1 + end));
            }
        }
        start += file.len() + 1;
    }
    (!ranges.is_empty()).then(|| ranges[random.below(ranges.len())])
}
