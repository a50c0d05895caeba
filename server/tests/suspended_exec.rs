//! A transaction that asks other loops in its midst: its effects are one unit all the same.

use redis::Connection;
use shardis::Server;

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

#[test]
fn the_effects_of_a_suspended_transaction_are_one_unit() {
    for shards in [1, 4] {
        let (sender, effects) = crossbeam_channel::unbounded();
        let builder = Server::builder().shards(shards).effects(sender);
        let server = builder.start().expect("it starts");
        std::thread::scope(|scope| {
            for number in 0..4 {
                let server = &server;
                scope.spawn(move || {
                    let mut client = connect(server);
                    for _ in 0..50 {
                        let mut unit = redis::pipe();
                        unit.atomic().cmd("SET").arg(format!("a{number}")).arg(number);
                        unit.cmd("CLIENT").arg("LIST");
                        unit.cmd("SET").arg(format!("b{number}")).arg(number);
                        unit.cmd("CLIENT").arg("INFO");
                        unit.cmd("SET").arg(format!("c{number}")).arg(number);
                        let () = unit.query(&mut client).expect("it runs");
                        // Others write meanwhile, on this loop too.
                        let set = redis::cmd("SET")
                            .arg(format!("x{number}"))
                            .arg(number)
                            .exec(&mut client);
                        set.expect("it is stored");
                    }
                });
            }
        });
        server.stop();
        let lines: Vec<String> = effects
            .iter()
            .map(|effect| {
                let words = effect.words.iter().map(|word| String::from_utf8_lossy(word));
                words.collect::<Vec<_>>().join(" ")
            })
            .collect();
        let begins: Vec<usize> = (0..lines.len()).filter(|&at| lines[at] == "MULTI").collect();
        assert_eq!(begins.len(), 200, "{shards} shards");
        for at in begins {
            let number = &lines[at + 1][5..6];
            let unit: Vec<String> = ["a", "b", "c"]
                .map(|key| format!("SET {key}{number} {number}"))
                .to_vec();
            assert_eq!(lines[at + 1..at + 4], unit);
            assert_eq!(lines[at + 4], "EXEC");
        }
        assert_eq!(lines.len(), 200 * 5 + 200);
    }
}
