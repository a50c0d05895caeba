//! Trimming: XTRIM, and the options that it shares with XADD.
//!
//! The result of an approximate trim depends on how entries are packed, so that its effect is an exact trim to the
//! same result.

use shardis_protocol::Arguments;
use shardis_storage::value::stream::{Log, References, Stream, StreamId, Trim, TrimTo, Trimmed};

use super::{REFERENCES, id, references_of};
use crate::config::{KeyspaceEvents, Settings};
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// Arguments that describe a trim.
pub(super) const ARGS: &[Arg] = &[
    Arg::one_of(
        "strategy",
        &[
            Arg::flag("maxlen", "MAXLEN"),
            Arg::flag("minid", "MINID").since("6.2.0"),
        ],
    ),
    Arg::one_of(
        "operator",
        &[Arg::flag("equal", "="), Arg::flag("approximately", "~")],
    )
    .optional(),
    Arg::string("threshold"),
    Arg::integer("count").token("LIMIT").since("6.2.0").optional(),
];

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "xtrim",
    arity: Arity::AtLeast(4),
    flags: Flags::WRITE,
    acl: Category::STREAM,
    tips: &["nondeterministic_output"],
    keys: &[KeySpec::at(1).read_write().delete()],
    runs: Runs::OnKeys(xtrim),
    doc: &Doc {
        since: "5.0.0",
        group: Group::Stream,
        complexity: "O(N) for N entries removed, which mostly go in whole blocks.",
        summary: "Removes entries from the beginning of a stream.",
        history: &[
            ("6.2.0", "Options `MINID` and `LIMIT`."),
            ("8.2.0", "Options `KEEPREF`, `DELREF` and `ACKED`."),
        ],
        args: &[
            Arg::key("key", 0),
            Arg::block("trim", ARGS),
            REFERENCES.since("8.2.0"),
        ],
        ..Doc::BLANK
    },
    ..Command::BLANK
}];

/// The most full blocks that an approximate trim without a limit of its own removes.
const BLOCKS_MAX: u64 = 100;
/// Limit of an approximate trim where the size of blocks is unlimited, entries.
const LIMIT_WITHOUT_BLOCKS: u64 = 10_000;
/// The highest default limit, entries.
const LIMIT_MAX: u64 = 1_000_000;

const LIMIT_OF_EXACT: ReplyError =
    ReplyError::Fixed("ERR syntax error, LIMIT cannot be used without the special ~ option");

/// The parsed options of a trim.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrimRequest {
    /// The trim to carry out.
    pub(super) trim: Trim,
    /// Treatment of groups' references to removed entries.
    pub(super) references: References,
    /// Index of the argument that is the threshold.
    threshold_at: usize,
    /// Index of the argument that is the word LIMIT.
    limit_at: Option<usize>,
}

/// Parser of the options of a trim among other options.
#[derive(Debug)]
pub(super) struct Parser<'a> {
    args: Arguments<'a>,
    next: usize,
    /// The threshold, whether it is approximate, and its argument's index.
    to: Option<(TrimTo, bool, usize)>,
    /// The limit, and the index of the word LIMIT.
    limit: Option<(u64, usize)>,
    references: Option<References>,
}

impl<'a> Parser<'a> {
    /// A parser of the options from argument 2 on.
    pub(super) fn new(args: Arguments<'a>) -> Self {
        Self {
            args,
            next: 2,
            to: None,
            limit: None,
            references: None,
        }
    }

    /// Reads options up to the first word that is not one of a trim, and returns that word without consuming it.
    pub(super) fn next_unknown(&mut self) -> Result<Option<&'a [u8]>, ReplyError> {
        while let Some(word) = self.args.get(self.next) {
            let has_value = self.next + 1 < self.args.len();
            match word {
                word if has_value && is(word, "MAXLEN") => {
                    let (approximate, text) = self.threshold()?;
                    let len = u64::try_from(int(text)?)
                        .map_err(|_| ReplyError::Fixed("ERR The MAXLEN argument must be >= 0."))?;
                    self.to = Some((TrimTo::Length(len), approximate, self.next));
                }
                word if has_value && is(word, "MINID") => {
                    let (approximate, text) = self.threshold()?;
                    self.to = Some((TrimTo::From(id(text)?), approximate, self.next));
                }
                word if has_value && is(word, "LIMIT") => {
                    let limit = u64::try_from(int(self.args.at(self.next + 1))?)
                        .map_err(|_| ReplyError::Fixed("ERR The LIMIT argument must be >= 0."))?;
                    self.limit = Some((limit, self.next));
                    self.next += 1;
                }
                word => match references_of(word) {
                    Some(references) if self.references.is_none() => self.references = Some(references),
                    _ => return Ok(Some(word)),
                },
            }
            self.next += 1;
        }
        Ok(None)
    }

    /// Reads from the word that names the strategy up to the threshold.
    fn threshold(&mut self) -> Result<(bool, &'a [u8]), ReplyError> {
        if self.to.is_some() {
            return Err(ReplyError::Fixed(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        self.next += 1;
        let approximate = match self.args.at(self.next) {
            b"~" => Some(true),
            b"=" => Some(false),
            _ => None,
        };
        let Some(approximate) = approximate.filter(|_| self.next + 1 < self.args.len()) else {
            return Ok((false, self.args.at(self.next)));
        };
        self.next += 1;
        Ok((approximate, self.args.at(self.next)))
    }

    /// Consumes a word that is not an option of a trim.
    pub(super) fn skip(&mut self) {
        self.next += 1;
    }

    /// Index of the argument that is read next.
    pub(super) fn position(&self) -> usize {
        self.next
    }

    /// The parsed request; none without a threshold. `is_repeated` is a request that ran elsewhere, where `~` became `=` and a limit
    /// may have stayed behind: the threshold alone has the same result.
    pub(super) fn finish(
        mut self,
        settings: &Settings,
        is_repeated: bool,
    ) -> Result<Option<TrimRequest>, ReplyError> {
        if is_repeated && self.to.is_some() {
            self.limit = self.limit.map(|(_, at)| (0, at));
        }
        let Some((to, approximate, threshold_at)) = self.to else {
            return match self.limit {
                Some((1.., _)) => Err(ReplyError::Fixed(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                )),
                Some(_) => Err(LIMIT_OF_EXACT),
                None => Ok(None),
            };
        };
        if self.limit.is_some() && !approximate && !is_repeated {
            return Err(LIMIT_OF_EXACT);
        }
        let limit = match self.limit {
            Some((limit, _)) => limit,
            None if approximate => default_limit(settings),
            None => 0,
        };
        Ok(Some(TrimRequest {
            trim: Trim {
                to,
                approximate,
                limit,
            },
            references: self.references.unwrap_or_default(),
            threshold_at,
            limit_at: self.limit.map(|(_, at)| at),
        }))
    }
}

/// Default limit of the entries that an approximate trim removes, so that it never takes long.
fn default_limit(settings: &Settings) -> u64 {
    match settings.stream_node_max_entries.saturating_mul(BLOCKS_MAX) {
        0 => LIMIT_WITHOUT_BLOCKS,
        limit => limit.min(LIMIT_MAX),
    }
}

/// The words of a request up to argument `end`, for its effect: an approximate trim is replaced by an exact one with
/// the same result.
pub(super) fn reported(
    args: Arguments<'_>,
    trimmed: Option<((&TrimRequest, Trimmed), &Log)>,
    end: usize,
) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = args.iter().take(end).map(<[u8]>::to_vec).collect();
    let Some(((request, trimmed), log)) = trimmed else {
        return words;
    };
    words[request.threshold_at] = match request.trim.to {
        TrimTo::Length(_) => log.len().to_string().into_bytes(),
        // Entries that groups refer to have stayed among those that have gone.
        TrimTo::From(_) if request.references == References::Respect && trimmed.count > 0 => {
            let next = trimmed.last.next().unwrap_or(StreamId::MAX);
            next.to_string().into_bytes()
        }
        // Everything has gone: no entry of a replica is to stay, either.
        TrimTo::From(_) if log.is_empty() => StreamId::MAX.to_string().into_bytes(),
        TrimTo::From(_) => log.first_id().to_string().into_bytes(),
    };
    words[request.threshold_at - 1] = b"=".to_vec();
    if let Some(at) = request.limit_at {
        words.drain(at..at + 2);
    }
    words
}

fn xtrim(ctx: &mut Context<'_>) -> CommandResult {
    let mut parser = Parser::new(ctx.args);
    if parser.next_unknown()?.is_some() {
        return Err(ReplyError::Syntax);
    }
    if parser.to.is_none() && parser.limit.is_none_or(|(limit, _)| limit == 0) {
        return Err(ReplyError::Fixed(
            "ERR syntax error, XTRIM must be called with a trimming strategy",
        ));
    }
    let request = parser.finish(ctx.settings, ctx.keyspace.stamp.is_of_repetition())?;
    let key = ctx.key(1);
    let (Some(stream), Some(request)) = (ctx.keyspace.write_as::<Stream>(&key)?, request) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let trimmed = stream.trim(request.trim, request.references);
    if trimmed.count > 0 {
        if request.trim.approximate && ctx.effects.is_recording() {
            let words = reported(
                ctx.args,
                Some(((&request, trimmed), stream.log())),
                ctx.args.len(),
            );
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            ctx.effects.replace(&words);
        }
        ctx.changed(&key, trimmed.count);
        ctx.notify(KeyspaceEvents::STREAM, "xtrim", &key);
    }
    ctx.reply.integer(trimmed.count.cast_signed());
    Ok(())
}
