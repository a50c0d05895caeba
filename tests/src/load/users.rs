//! Users: the cost of a GET under many rules, and beside an audit log, each beside a server without.

use std::io::{Error, Result, Write};

use super::cluster::cost;
use super::generator::{Generator, Limit};
use super::median;
use super::options::Options;
use super::placement::{Cores, Placement};
use super::report::{Report, Target};
use super::rows::CLIENTS;
use super::server::{Program, Server};
use super::template::Template;

const KEYS: u64 = 100_000;

/// A user with ten patterns of keys, of which the last one matches, rules on subcommands, and two selectors.
const RULES: &str = "ACL SETUSER service on nopass ~a:* ~customers:* ~orders:* ~prices:* ~stock:* ~sessions:* ~carts:* ~mails:* \
                     ~queue:* ~key:* +@read +@write +@connection -@dangerous +client|setinfo +config|get (~x:* +set) \
                     (%R~y:* +get)";

/// A row: its name, the directives of the second server, the first requests of its connections, and the target.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    f64,
);

const ROWS: [Row; 2] = [
    (
        "GET -P 16, a user with many rules, us",
        &[],
        &["AUTH service x"],
        1.15,
    ),
    (
        "GET -P 16, audit log on, us",
        &["--audit-log", "audit.log"],
        &[],
        1.02,
    ),
];

/// The section.
pub(crate) fn users(
    options: &Options,
    cores: &Cores,
    shardis: &Program,
    report: &mut Report<impl Write>,
) -> Result<()> {
    report.heading("Users", "default user", "with that")?;
    for (name, directives, greeting, times) in ROWS.iter().filter(|row| options.wants(row.0)) {
        let costs = costs(options, cores, shardis, directives, greeting);
        report.pair(name, Target::Times(*times), costs)?;
    }
    Ok(())
}

/// CPU microseconds of a GET on a server as it is, and on one with these directives whose clients begin with these requests.
fn costs(
    options: &Options,
    cores: &Cores,
    shardis: &Program,
    directives: &[&str],
    greeting: &[&str],
) -> Result<[f64; 2]> {
    let placement = cores.pinned();
    cores.place_load(placement)?;
    let servers = [
        shardis.start(placement, &[])?,
        shardis.start(placement, directives)?,
    ];
    let mut sides = Vec::new();
    for (server, greeting) in servers.iter().zip([&[][..], greeting]) {
        sides.push((server, clients(server, greeting)?));
    }
    let mut figures = [Vec::new(), Vec::new()];
    let mut get = Template::random("GET {key}", 16).map_err(Error::other)?;
    for _ in 0..options.rounds {
        for ((server, generator), figures) in sides.iter_mut().zip(&mut figures) {
            figures.push(cost(server, generator, &mut get, options.time)?);
        }
    }
    cores.place_load(Placement::Free)?;
    Ok(figures.map(|figures| median(&figures)))
}

/// Clients of a server with keys, each of which has sent these requests.
fn clients(server: &Server, greeting: &[&str]) -> Result<Generator> {
    let mut generator = Generator::connect(server.address(), CLIENTS, None)?;
    let mut set = Template::counting("SET {key} {value:64}", 100).map_err(Error::other)?;
    generator.run(&mut set, Limit::requests(KEYS))?;
    let mut once = |request: &str, count: usize| {
        let mut request = Template::random(request, 1).map_err(Error::other)?;
        generator.run(&mut request, Limit::requests(count as u64))
    };
    once(RULES, 1)?;
    for request in greeting {
        once(request, CLIENTS)?;
    }
    Ok(generator)
}
