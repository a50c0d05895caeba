//! The comparison of what writers were told with what is there afterwards.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::client::ClusterClient;
use super::load::{Ledger, Sent};
use crate::reply::Reply;

/// Longest wait for the answer to a read: a cluster may still be failing over.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts of numbers, over all lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Acknowledged ones.
    pub acknowledged: u64,
    /// Ones of which nobody knows whether they were appended.
    pub unknown: u64,
    /// Acknowledged ones that are gone. A cluster does not promise that there are none.
    pub lost: u64,
    /// Ones that are there twice. There must be none.
    pub doubled: u64,
    /// Ones that are there although they were refused, or never sent. There must be none.
    pub invented: u64,
    /// Acknowledged ones that are there behind a later acknowledged one. There must be none: each was sent when the one before it had
    /// been answered.
    pub disordered: u64,
}

impl Audit {
    /// Reads the lists of a ledger.
    ///
    /// # Panics
    /// When one cannot be read.
    #[must_use]
    pub fn of(ledger: &Ledger, client: &mut ClusterClient) -> Audit {
        let mut audit = Audit::default();
        for (list, sent) in ledger {
            let reply = client
                .insist(list, &["LRANGE", list, "0", "-1"], PATIENCE)
                .unwrap_or_else(|reason| panic!("{reason}"));
            let found = reply.items().iter().map(Reply::text);
            let found: Vec<u64> = found.map(|text| text.parse().expect("a number")).collect();
            audit.compare(sent, &found);
        }
        audit
    }

    /// Enters one list.
    fn compare(&mut self, sent: &[(u64, Sent)], found: &[u64]) {
        let fates: BTreeMap<u64, Sent> = sent.iter().copied().collect();
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        for number in found {
            *times.entry(*number).or_default() += 1;
        }
        for (number, fate) in &fates {
            self.acknowledged += u64::from(*fate == Sent::Acknowledged);
            self.unknown += u64::from(*fate == Sent::Unknown);
            self.lost += u64::from(*fate == Sent::Acknowledged && !times.contains_key(number));
        }
        for (number, times) in times {
            self.doubled += times - 1;
            let may_be_there = matches!(fates.get(&number), Some(Sent::Acknowledged | Sent::Unknown));
            self.invented += u64::from(!may_be_there);
        }
        let is_acknowledged = |number: &&u64| fates.get(number) == Some(&Sent::Acknowledged);
        let ordered: Vec<u64> = found.iter().filter(is_acknowledged).copied().collect();
        self.disordered += ordered.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
    }

    /// Checks what must hold in every cluster, however many nodes have died.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn assert_sound(&self) {
        let faults = self.doubled + self.invented + self.disordered;
        assert_eq!(faults, 0, "numbers that must not be there: {self}");
    }

    /// Checks that nothing at all was lost.
    ///
    /// # Panics
    /// When it was.
    pub fn assert_complete(&self) {
        self.assert_sound();
        assert_eq!(self.lost, 0, "acknowledged writes are lost: {self}");
    }
}

impl Display for Audit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} lost, {} unknown, {} doubled, {} invented, {} out of order",
            self.acknowledged, self.lost, self.unknown, self.doubled, self.invented, self.disordered
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_counted() {
        let sent = [
            (0, Sent::Acknowledged),
            (1, Sent::Acknowledged),
            (2, Sent::Refused),
            (3, Sent::Unknown),
            (4, Sent::Unknown),
            (5, Sent::Acknowledged),
        ];
        let mut audit = Audit::default();
        audit.compare(&sent, &[0, 1, 3, 5]);
        assert_eq!((audit.acknowledged, audit.unknown), (3, 2));
        audit.assert_complete();
        audit.compare(&sent, &[5, 0, 0, 2, 7]);
        assert_eq!((audit.lost, audit.doubled, audit.invented), (1, 1, 2));
        assert_eq!(audit.disordered, 1);
    }
}
