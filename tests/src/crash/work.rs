//! Work of a client before a crash: endless steps, and how the state that they leave tells how many there were.

use crate::client::Client;
use crate::reply::Reply;

/// Steps after which a list starts anew.
const CYCLE: u64 = 400;
/// Fields of a hash.
const FIELDS: u64 = 40;

/// A kind of work, on keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// INCR.
    Count(usize),
    /// SET and DEL in turn.
    Toggle(usize),
    /// RPUSH of the step's number, and DEL at the end of each cycle.
    Push(usize),
    /// MULTI with an INCR in each of two shards.
    Pair(usize),
    /// RPUSH to one list, then LMOVE to another one, in turn; DEL of both at the end of each cycle.
    Move(usize),
    /// HSET of a field, one after the other.
    Fields(usize),
}

/// A state: that after which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// After this one.
    Step(u64),
    /// After one whose number is a multiple of this: nothing is there.
    MultipleOf(u64),
}

fn command(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// A list of numbers.
fn numbers(reply: &Reply) -> Result<Vec<u64>, String> {
    let items = reply.items().iter();
    items
        .map(|item| item.text().parse().map_err(|_| format!("an element {item}")))
        .collect()
}

/// A number; 0 where there is none.
fn number(reply: &Reply) -> Result<u64, String> {
    if reply.is_null() {
        return Ok(0);
    }
    reply.text().parse().map_err(|_| format!("a value {reply}"))
}

impl Work {
    /// One of each kind.
    pub(super) fn all(number: usize) -> [Work; 6] {
        [
            Work::Count(number),
            Work::Toggle(number),
            Work::Push(number),
            Work::Pair(number),
            Work::Move(number),
            Work::Fields(number),
        ]
    }

    /// The commands of a step.
    pub(super) fn step(self, step: u64) -> Vec<Vec<String>> {
        let lines: Vec<String> = match self {
            Work::Count(id) => vec![format!("INCR count:{id}")],
            Work::Toggle(id) if step % 2 == 1 => vec![format!("SET toggle:{id} {step}")],
            Work::Toggle(id) => vec![format!("DEL toggle:{id}")],
            Work::Push(id) if step.is_multiple_of(CYCLE) => vec![format!("DEL push:{id}")],
            Work::Push(id) => vec![format!("RPUSH push:{id} {step}")],
            Work::Pair(id) => vec![
                "MULTI".to_owned(),
                format!("INCR pair:{id}:a"),
                format!("INCR pair:{id}:b"),
                "EXEC".to_owned(),
            ],
            Work::Move(id) if step.is_multiple_of(CYCLE) => vec![format!("DEL move:{id}:a move:{id}:b")],
            Work::Move(id) if step % 2 == 1 => vec![format!("RPUSH move:{id}:a {step}")],
            Work::Move(id) => vec![format!("LMOVE move:{id}:a move:{id}:b LEFT RIGHT")],
            Work::Fields(id) => vec![format!("HSET fields:{id} {} {step}", step % FIELDS)],
        };
        lines.iter().map(|line| command(line)).collect()
    }

    /// Reads the state.
    pub(super) fn look(self, client: &mut Client) -> Result<Seen, String> {
        match self {
            Work::Count(id) => Ok(Seen::Step(number(&client.line(&format!("GET count:{id}")))?)),
            Work::Toggle(id) => toggled(number(&client.line(&format!("GET toggle:{id}")))?),
            Work::Push(id) => pushed(&numbers(&client.line(&format!("LRANGE push:{id} 0 -1")))?),
            Work::Pair(id) => {
                let both = numbers_of_pair(&client.line(&format!("MGET pair:{id}:a pair:{id}:b")))?;
                if both.0 == both.1 {
                    Ok(Seen::Step(both.0))
                } else {
                    Err(format!("half a transaction: {both:?}"))
                }
            }
            Work::Move(id) => {
                let source = numbers(&client.line(&format!("LRANGE move:{id}:a 0 -1")))?;
                moved(
                    &source,
                    &numbers(&client.line(&format!("LRANGE move:{id}:b 0 -1")))?,
                )
            }
            Work::Fields(id) => {
                let reply = client.line(&format!("HGETALL fields:{id}"));
                let pairs = reply.pairs();
                let fields = pairs
                    .iter()
                    .map(|(field, value)| Ok((number(field)?, number(value)?)));
                in_fields(&fields.collect::<Result<Vec<_>, String>>()?)
            }
        }
    }
}

fn numbers_of_pair(reply: &Reply) -> Result<(u64, u64), String> {
    match reply.items() {
        [first, second] => Ok((number(first)?, number(second)?)),
        _ => Err(format!("no pair: {reply}")),
    }
}

fn toggled(value: u64) -> Result<Seen, String> {
    match value {
        0 => Ok(Seen::MultipleOf(2)),
        step if step % 2 == 1 => Ok(Seen::Step(step)),
        other => Err(format!("a value {other} that was never set")),
    }
}

fn pushed(list: &[u64]) -> Result<Seen, String> {
    let Some(&last) = list.last() else {
        return Ok(Seen::MultipleOf(CYCLE));
    };
    let first = last / CYCLE * CYCLE + 1;
    if list.iter().copied().eq(first..=last) {
        Ok(Seen::Step(last))
    } else {
        Err(format!("elements doubled, lost or out of order: {list:?}"))
    }
}

fn moved(source: &[u64], target: &[u64]) -> Result<Seen, String> {
    let wrong = || format!("elements doubled, lost or out of order: {source:?}, {target:?}");
    let last = match (source, target) {
        ([], []) => return Ok(Seen::MultipleOf(CYCLE)),
        // Pushed and not moved yet.
        ([pushed], _) => *pushed,
        ([], [.., moved]) => moved + 1,
        _ => return Err(wrong()),
    };
    // The DEL at the end of the cycle is in the place of a move.
    let first = last / CYCLE * CYCLE + 1;
    if target.iter().chain(source).copied().eq((first..=last).step_by(2)) {
        Ok(Seen::Step(last))
    } else {
        Err(wrong())
    }
}

fn in_fields(fields: &[(u64, u64)]) -> Result<Seen, String> {
    let last = fields.iter().map(|&(_, step)| step).max().unwrap_or(0);
    let expected = last.min(FIELDS) as usize;
    let is_right = |&(field, step): &(u64, u64)| step % FIELDS == field && step > last.saturating_sub(FIELDS);
    if fields.len() == expected && fields.iter().all(is_right) {
        Ok(Seen::Step(last))
    } else {
        Err(format!("fields of different moments: {fields:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_tell_their_step() {
        assert_eq!(pushed(&[401, 402, 403]), Ok(Seen::Step(403)));
        assert_eq!(pushed(&[]), Ok(Seen::MultipleOf(400)));
        assert_eq!(moved(&[5], &[1, 3]), Ok(Seen::Step(5)));
        assert_eq!(moved(&[], &[401, 403]), Ok(Seen::Step(404)));
        assert_eq!(in_fields(&[]), Ok(Seen::Step(0)));
        assert_eq!(in_fields(&[(1, 1), (2, 2)]), Ok(Seen::Step(2)));
        assert_eq!(toggled(0), Ok(Seen::MultipleOf(2)));
    }

    #[test]
    fn states_that_never_were_are_noticed() {
        assert!(pushed(&[1, 3]).is_err());
        assert!(pushed(&[1, 2, 2]).is_err());
        assert!(moved(&[1, 3], &[]).is_err());
        assert!(moved(&[3], &[1, 3]).is_err());
        assert!(moved(&[], &[3]).is_err());
        assert!(in_fields(&[(2, 2)]).is_err());
        assert!(in_fields(&[(1, 41), (2, 2)]).is_err());
        assert!(toggled(2).is_err());
    }
}
