//! One run of the request parser over arbitrary bytes: read in pieces they must mean what they mean as a whole.
//!
//! The first bytes of the data choose how it is cut, how many requests are taken at a time and whether big bulks are
//! detached; the others are the stream. The same body runs under the fuzzer and, over seeded data, as a plain test of
//! the `protocol` crate.

use shardis_protocol::{Limits, ProtocolError, RequestParser, Requests, Wants};

/// Plan of a run: sizes of the reads and limits.
struct Plan<'a> {
    /// Lengths of reads, used in turn; 0 stands for all that is left.
    cuts: &'a [u8],
    requests_max: usize,
    detaches: bool,
    limits: Limits,
}

/// Requests and errors that a run has found.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
}

/// Panics if the parser contradicts itself over `data`.
pub(crate) fn check(data: &[u8]) {
    let Some((&[flags, requests_max, a, b, c], stream)) = data.split_first_chunk::<5>() else {
        return;
    };
    let limits = Limits {
        authenticated: flags & 1 == 0,
        inline_bytes_max: if flags & 2 == 0 { 32 } else { 64 * 1024 },
        ..Limits::default()
    };
    let whole = Plan {
        cuts: &[0],
        requests_max: usize::MAX,
        detaches: false,
        limits,
    };
    let split = Plan {
        cuts: &[a, b, c],
        requests_max: 1 + usize::from(requests_max),
        detaches: flags & 4 != 0,
        limits,
    };
    assert_eq!(run(stream, &split), run(stream, &whole));
}

/// Reads all of `stream`.
fn run(stream: &[u8], plan: &Plan<'_>) -> Outcome {
    let mut parser = RequestParser::new();
    let mut outcome = Outcome {
        requests: Vec::new(),
        error: None,
    };
    let mut kept = Vec::new();
    let mut detached: Vec<Vec<u8>> = Vec::new();
    let mut rest = stream;
    for cut in plan.cuts.iter().cycle() {
        let read = take(&mut rest, if *cut == 0 { usize::MAX } else { usize::from(*cut) });
        kept.extend_from_slice(read);
        loop {
            let mut out = Requests::new();
            let result = parser.parse(&mut kept, 0, &plan.limits, &mut out, plan.requests_max);
            assert!(out.len() <= plan.requests_max);
            for request in out.iter() {
                let buffers: Vec<&[u8]> = detached.iter().map(Vec::as_slice).collect();
                let arguments = request.arguments(&kept, &buffers);
                outcome
                    .requests
                    .push(arguments.iter().map(<[u8]>::to_vec).collect());
                detached.clear();
            }
            let progress = match result {
                Ok(progress) => progress,
                Err(error) => {
                    return Outcome {
                        error: Some(error),
                        ..outcome
                    };
                }
            };
            kept.drain(..progress.consumed);
            match progress.wants {
                Wants::Room => {}
                Wants::Bulk { len, received } if plan.detaches => {
                    let Some(bulk) = parser.detach_bulk() else {
                        panic!("a big bulk can be detached")
                    };
                    assert_eq!((kept.len() - bulk.payload_start, bulk.len), (received, len));
                    let mut payload = kept.split_off(bulk.payload_start);
                    payload.extend_from_slice(take(&mut rest, len + 2 - received));
                    if payload.len() < len + 2 {
                        return outcome;
                    }
                    payload.truncate(len);
                    detached.push(payload);
                }
                Wants::Nothing | Wants::More | Wants::Bulk { .. } => break,
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    outcome
}

/// Takes up to `bytes_max` bytes off the front of `rest`.
fn take<'a>(rest: &mut &'a [u8], bytes_max: usize) -> &'a [u8] {
    let (front, behind) = rest.split_at(rest.len().min(bytes_max));
    *rest = behind;
    front
}
