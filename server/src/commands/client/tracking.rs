//! Client-side caching: CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR.

use shardis_protocol::Arguments;

use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{Closing, CommandResult, Part, Roster, Session};
use crate::pubsub::{Seat, Subscriber};
use crate::tracking::{Caching, Redirect, TrackingModes, TrackingState, Wish};

const OTHER_BROADCAST: &str = "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                               re-enabling it with a different mode.";
const OTHER_CHOICE: &str = "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                            re-enabling it with a different mode.";
const NOTHING_TO_CHOOSE: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
                                 mode enabled";

/// Options of CLIENT TRACKING.
#[derive(Debug, Default)]
struct Options<'a> {
    modes: TrackingModes,
    redirect: Option<Redirect>,
    prefixes: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Reads the words behind ON or OFF. `parts` tell whether the client exists that is to get the messages.
    fn parse(args: Arguments<'a>, parts: &[Part]) -> Result<Self, ReplyError> {
        let mut options = Self::default();
        let mut words = args.tail(3).iter();
        while let Some(word) = words.next() {
            let has_more = words.len() > 0;
            match word {
                word if is(word, "BCAST") => options.modes |= TrackingModes::BCAST,
                word if is(word, "OPTIN") => options.modes |= TrackingModes::OPTIN,
                word if is(word, "OPTOUT") => options.modes |= TrackingModes::OPTOUT,
                word if is(word, "NOLOOP") => options.modes |= TrackingModes::NOLOOP,
                word if is(word, "PREFIX") && has_more => options.prefixes.extend(words.next()),
                word if is(word, "REDIRECT") && has_more => {
                    options.redirect(words.next().unwrap_or_default(), parts)?;
                }
                _ => return Err(ReplyError::Syntax),
            }
        }
        Ok(options)
    }

    fn redirect(&mut self, id: &[u8], parts: &[Part]) -> Result<(), ReplyError> {
        if self.redirect.is_some() {
            return Err(ReplyError::Fixed(
                "ERR A client can only redirect to a single other client",
            ));
        }
        let found = u64::try_from(int(id)?).ok();
        let found = found.and_then(|id| parts.iter().find_map(|part| redirect_in(part, id)));
        self.redirect = Some(found.ok_or(ReplyError::Fixed(
            "ERR The client ID you want redirect to does not exist",
        ))?);
        Ok(())
    }

    /// Checks that the options are compatible with each other, and with what the client has chosen before.
    fn check(&self, known: Option<&TrackingState>) -> Result<(), ReplyError> {
        let modes = self.modes;
        let is_broadcast = modes.contains(TrackingModes::BCAST);
        if !is_broadcast && !self.prefixes.is_empty() {
            return Err(ReplyError::Fixed(
                "ERR PREFIX option requires BCAST mode to be enabled",
            ));
        }
        if known.is_some_and(|known| known.modes.contains(TrackingModes::BCAST) != is_broadcast) {
            return Err(ReplyError::Fixed(OTHER_BROADCAST));
        }
        if is_broadcast && modes.intersects(TrackingModes::OPTIN | TrackingModes::OPTOUT) {
            return Err(ReplyError::Fixed(
                "ERR OPTIN and OPTOUT are not compatible with BCAST",
            ));
        }
        if modes.contains(TrackingModes::OPTIN | TrackingModes::OPTOUT) {
            return Err(ReplyError::Fixed(
                "ERR You can't specify both OPTIN mode and OPTOUT mode",
            ));
        }
        let is_switched =
            |from, to| known.is_some_and(|known| known.modes.contains(from)) && modes.contains(to);
        if is_switched(TrackingModes::OPTOUT, TrackingModes::OPTIN)
            || is_switched(TrackingModes::OPTIN, TrackingModes::OPTOUT)
        {
            return Err(ReplyError::Fixed(OTHER_CHOICE));
        }
        self.check_prefixes(known)
    }

    /// Checks that no key has two of the client's prefixes.
    fn check_prefixes(&self, known: Option<&TrackingState>) -> Result<(), ReplyError> {
        for (index, prefix) in self.prefixes.iter().enumerate() {
            let mut existing = known.into_iter().flat_map(|known| &known.prefixes);
            if let Some(other) = existing.find(|other| overlap(prefix, other)) {
                return Err(overlapping(prefix, "an existing prefix", other));
            }
            let mut others = self.prefixes[index + 1..].iter();
            if let Some(other) = others.find(|other| overlap(prefix, other)) {
                return Err(overlapping(prefix, "another provided prefix", other));
            }
        }
        Ok(())
    }
}

/// Whether there are keys that have both prefixes.
fn overlap(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn overlapping(prefix: &[u8], kind: &str, other: &[u8]) -> ReplyError {
    let line: [&[u8]; 7] = [
        b"ERR Prefix '",
        prefix,
        b"' overlaps with ",
        kind.as_bytes(),
        b" '",
        other,
        b"'. Prefixes for a single client must not overlap.",
    ];
    ReplyError::Bytes(line.concat())
}

/// Looks for the client among those of a loop that is to get the messages. The part is its address, if it is here.
pub(super) fn find(clients: &mut Roster<'_>) -> Result<Part, ReplyError> {
    let mut part = Part::default();
    let args = clients.args;
    // Whatever is wrong with the request is told when the parts are merged.
    let Some(id) = named_id(args) else { return Ok(part) };
    let found = clients
        .clients
        .find(|client| client.id == id && client.closing != Closing::Now);
    if let Some(client) = found {
        let Seat { of_loop, subscriber } = client.seat;
        part.count = id;
        part.bytes.extend_from_slice(&of_loop.to_le_bytes());
        part.bytes.extend_from_slice(&subscriber.connection.to_le_bytes());
    }
    Ok(part)
}

/// The id behind the first REDIRECT.
fn named_id(args: Arguments<'_>) -> Option<u64> {
    let mut words = args.tail(3).iter();
    words.find(|word| is(word, "REDIRECT"))?;
    u64::try_from(int(words.next()?).ok()?).ok()
}

/// The client that a part has found, if it has this id.
fn redirect_in(part: &Part, id: u64) -> Option<Redirect> {
    let (of_loop, rest) = part.bytes.split_first_chunk()?;
    let (connection, _) = rest.split_first_chunk()?;
    (part.count == id).then(|| Redirect {
        client: id,
        seat: Seat {
            of_loop: u16::from_le_bytes(*of_loop),
            subscriber: Subscriber {
                connection: u32::from_le_bytes(*connection),
                client: id as u32,
            },
        },
    })
}

/// Turns tracking on or off.
pub(super) fn tracking(session: &mut Session<'_>, parts: &[Part]) -> CommandResult {
    let options = Options::parse(session.args, parts)?;
    match session.args.at(2) {
        word if is(word, "ON") => {
            options.check(session.client.tracking.as_deref())?;
            begin(session, &options)?;
        }
        word if is(word, "OFF") => session.client.end_tracking(&session.node.tracking),
        _ => return Err(ReplyError::Syntax),
    }
    session.reply.ok();
    Ok(())
}

fn begin(session: &mut Session<'_>, options: &Options<'_>) -> CommandResult {
    let client = &mut *session.client;
    let is_broadcast = options.modes.contains(TrackingModes::BCAST);
    let prefixes: &[&[u8]] = match &*options.prefixes {
        [] if is_broadcast => &[b"" as &[u8]],
        prefixes => prefixes,
    };
    let wish = Wish {
        modes: options.modes,
        redirect: options.redirect,
        prefixes,
    };
    let known = client.tracking.take().map(|known| *known);
    let state = session.node.tracking.join(client.seat, known, &wish);
    // Of 2³² connections that follow one another, two may have one number.
    let state = state.ok_or(ReplyError::Fixed(
        "ERR A client that is connected for very long has the number of this one. Connect again.",
    ))?;
    client.tracking = Some(Box::new(state));
    Ok(())
}

/// Has the next command's reads be remembered, or not.
pub(super) fn caching(session: &mut Session<'_>) -> CommandResult {
    let in_transaction = session.client.denies_blocking();
    let tracking = session.client.tracking.as_mut();
    let tracking = tracking.ok_or(ReplyError::Fixed(NOTHING_TO_CHOOSE))?;
    let needed = match session.args.at(2) {
        word if is(word, "YES") => (
            TrackingModes::OPTIN,
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ),
        word if is(word, "NO") => (
            TrackingModes::OPTOUT,
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ),
        _ => return Err(ReplyError::Syntax),
    };
    if !tracking.modes.contains(needed.0) {
        return Err(ReplyError::Fixed(needed.1));
    }
    // In a transaction it applies to the rest of that.
    tracking.caching = if in_transaction {
        Caching::Now
    } else {
        Caching::Next
    };
    session.reply.ok();
    Ok(())
}

/// Tells which client gets the messages: 0 for this one, -1 if it does not track.
pub(super) fn getredir(session: &mut Session<'_>) -> CommandResult {
    session.reply.integer(session.client.redirect());
    Ok(())
}

/// Tells what the client has chosen.
pub(super) fn trackinginfo(session: &mut Session<'_>) -> CommandResult {
    let redirect = session.client.redirect();
    let reply = &mut session.reply;
    let tracking = session.client.tracking.as_deref();
    let flags = tracking.map_or_else(|| vec!["off"], flags_of);
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect);
    reply.bulk(b"prefixes");
    reply.array(tracking.map_or(0, |tracking| tracking.prefixes.len()));
    let prefixes = tracking.into_iter().flat_map(|tracking| &tracking.prefixes);
    prefixes.for_each(|prefix| reply.bulk(prefix));
    Ok(())
}

fn flags_of(tracking: &TrackingState) -> Vec<&'static str> {
    let has = |mode| tracking.modes.contains(mode);
    let is_said = tracking.caching != Caching::Unsaid;
    let flags = [
        (true, "on"),
        (has(TrackingModes::BCAST), "bcast"),
        (has(TrackingModes::OPTIN), "optin"),
        (has(TrackingModes::OPTIN) && is_said, "caching-yes"),
        (has(TrackingModes::OPTOUT), "optout"),
        (has(TrackingModes::OPTOUT) && is_said, "caching-no"),
        (has(TrackingModes::NOLOOP), "noloop"),
        (tracking.is_broken(), "broken_redirect"),
    ];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
    flags.map(|(_, flag)| flag).collect()
}

#[cfg(test)]
mod tests {
    use crate::commands::testing::Shell;
    use crate::pubsub::Seat;

    fn seated() -> Shell {
        let mut shell = Shell::new();
        shell.client.seat = Seat::new(0, 7, shell.client.id);
        shell
    }

    #[test]
    fn modes_are_told() {
        let mut shell = seated();
        shell.check(&[
            ("CLIENT GETREDIR", ":-1"),
            (
                "CLIENT TRACKINGINFO",
                "[\"flags\", [\"off\"], \"redirect\", :-1, \"prefixes\", []]",
            ),
            ("CLIENT TRACKING on OPTIN NOLOOP", "+OK"),
            ("CLIENT GETREDIR", ":0"),
            (
                "CLIENT TRACKINGINFO",
                "[\"flags\", [\"on\", \"optin\", \"noloop\"], \"redirect\", :0, \"prefixes\", []]",
            ),
            ("CLIENT CACHING YES", "+OK"),
            (
                "CLIENT TRACKINGINFO",
                "[\"flags\", [\"on\", \"optin\", \"caching-yes\", \"noloop\"], \"redirect\", :0, \"prefixes\", []]",
            ),
        ]);
        assert!(shell.run("CLIENT INFO").reply.contains(" flags=t "));
        shell.check(&[
            ("CLIENT TRACKING OFF", "+OK"),
            ("CLIENT TRACKING ON BCAST PREFIX b PREFIX a", "+OK"),
            (
                "CLIENT TRACKINGINFO",
                "[\"flags\", [\"on\", \"bcast\"], \"redirect\", :0, \"prefixes\", [\"a\", \"b\"]]",
            ),
        ]);
        assert!(shell.run("CLIENT INFO").reply.contains(" flags=tB "));
        assert_eq!(shell.node.tracking.figures().prefixes, 2);
        shell.check(&[("RESET", "+RESET"), ("CLIENT GETREDIR", ":-1")]);
        assert_eq!(shell.node.tracking.figures().clients, 0);
        assert_eq!(shell.node.tracking.figures().prefixes, 0);
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let mut shell = seated();
        shell.check(&[
            ("CLIENT TRACKING maybe", "-ERR syntax error"),
            ("CLIENT TRACKING ON FOO", "-ERR syntax error"),
            ("CLIENT TRACKING ON PREFIX", "-ERR syntax error"),
            ("CLIENT TRACKING ON REDIRECT", "-ERR syntax error"),
            (
                "CLIENT TRACKING ON REDIRECT x",
                "-ERR value is not an integer or out of range",
            ),
            (
                "CLIENT TRACKING ON REDIRECT 99 FOO",
                "-ERR The client ID you want redirect to does not exist",
            ),
            (
                "CLIENT TRACKING ON REDIRECT 1 REDIRECT 1",
                "-ERR A client can only redirect to a single other client",
            ),
            (
                "CLIENT TRACKING ON PREFIX a",
                "-ERR PREFIX option requires BCAST mode to be enabled",
            ),
            (
                "CLIENT TRACKING ON BCAST OPTIN",
                "-ERR OPTIN and OPTOUT are not compatible with BCAST",
            ),
            (
                "CLIENT TRACKING ON OPTIN OPTOUT",
                "-ERR You can't specify both OPTIN mode and OPTOUT mode",
            ),
            (
                "CLIENT TRACKING ON BCAST PREFIX a PREFIX b PREFIX ba",
                "-ERR Prefix 'b' overlaps with another provided prefix 'ba'. Prefixes for a single client must not overlap.",
            ),
            ("CLIENT GETREDIR", ":-1"),
            ("CLIENT TRACKING ON BCAST PREFIX a", "+OK"),
            (
                "CLIENT TRACKING ON BCAST PREFIX ab",
                "-ERR Prefix 'ab' overlaps with an existing prefix 'a'. Prefixes for a single client must not overlap.",
            ),
            ("CLIENT TRACKING ON BCAST PREFIX c", "+OK"),
            ("CLIENT TRACKING ON", &format!("-{}", super::OTHER_BROADCAST)),
            ("CLIENT TRACKING OFF", "+OK"),
            ("CLIENT CACHING YES", &format!("-{}", super::NOTHING_TO_CHOOSE)),
            ("CLIENT TRACKING ON OPTIN", "+OK"),
            (
                "CLIENT CACHING NO",
                "-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ),
            ("CLIENT CACHING maybe", "-ERR syntax error"),
            ("CLIENT TRACKING ON OPTOUT", &format!("-{}", super::OTHER_CHOICE)),
        ]);
    }
}
