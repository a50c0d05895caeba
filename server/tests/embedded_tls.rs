//! Embedded servers that speak TLS with certificates of a throw-away authority.

use redis::{Client, ClientTlsConfig, Commands, Connection, RedisResult, TlsCertificates};
use shardis::Server;

/// A connection of a client that trusts the server's authority and shows a certificate for a name, if it has one.
fn connect(server: &Server, name: Option<&str>) -> RedisResult<Connection> {
    let authority = server
        .tls_authority()
        .expect("a server with a throw-away authority");
    let client_tls = name.map(|name| {
        let identity = authority.issue(name).expect("a certificate");
        ClientTlsConfig {
            client_cert: identity.certificate.into_bytes(),
            client_key: identity.key.into_bytes(),
        }
    });
    let certificates = TlsCertificates {
        client_tls,
        root_cert: Some(authority.certificate().into_bytes()),
    };
    Client::build_with_tls(server.url(), certificates)?.get_connection()
}

#[test]
fn a_client_library_works_against_it() {
    for backend in ["auto", "epoll"] {
        let server = Server::builder()
            .tls_self_signed()
            .shards(2)
            .directive("io-backend", backend)
            .start()
            .unwrap();
        assert!(
            server.url().starts_with("rediss://127.0.0.1:"),
            "{}",
            server.url()
        );
        let mut client = connect(&server, None).unwrap();
        let () = client.set("greeting", "hello").unwrap();
        assert_eq!(client.get::<_, String>("greeting").unwrap(), "hello");
        assert!(server.tls_authority().unwrap().certificate_file().is_file());
        let plain = server.url().replace("rediss", "redis");
        let refused = Client::open(plain)
            .unwrap()
            .get_connection()
            .and_then(|mut plain| plain.get::<_, String>("greeting"));
        assert!(refused.is_err(), "it serves TLS only");
    }
}

#[test]
fn users_come_from_passwords_or_certificates() {
    let server = Server::builder()
        .tls_self_signed()
        .directive("tls-auth-clients", "yes")
        .directive("tls-auth-clients-user", "CN")
        .user("default", "off")
        .user("orders", "on >pw ~orders:* +@all")
        .start()
        .unwrap();
    let whoami = |client: &mut Connection| redis::cmd("ACL").arg("WHOAMI").query::<String>(client);
    let mut orders = connect(&server, Some("orders")).unwrap();
    assert_eq!(whoami(&mut orders).unwrap(), "orders");
    let () = orders.set("orders:1", 1).unwrap();
    assert!(orders.set::<_, _, ()>("other", 1).is_err());
    let nobody = connect(&server, Some("nobody")).and_then(|mut nobody| whoami(&mut nobody));
    assert!(nobody.is_err_and(|error| error.to_string().contains("NOAUTH")));
    assert!(
        connect(&server, None)
            .and_then(|mut none| whoami(&mut none))
            .is_err()
    );
}

#[test]
fn a_chosen_port_and_a_plain_one_beside_it() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Server::builder().port(port).tls_self_signed().start().unwrap();
    assert_eq!(server.address().port(), port);
    drop(server);
    let other = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let server = Server::builder()
        .tls_self_signed()
        .directive("port", other.to_string())
        .start()
        .unwrap();
    // The plain port is the one that is told.
    assert_eq!(server.url(), format!("redis://127.0.0.1:{other}/"));
    assert!(
        Server::builder().directive("tls-port", "1").start().is_err(),
        "there is no certificate"
    );
}

#[test]
fn users_are_rules_of_acl_setuser() {
    let server = Server::builder()
        .user("reader", "on >pw ~* +@read")
        .start()
        .unwrap();
    let url = server.url().replace("redis://", "redis://reader:pw@");
    let mut client = Client::open(url).unwrap().get_connection().unwrap();
    assert_eq!(client.get::<_, Option<String>>("k").unwrap(), None);
    assert!(client.set::<_, _, ()>("k", 1).is_err());
    assert!(Server::builder().user("reader", "nonsense").start().is_err());
}
