//! Users by certificate: `tls-auth-clients-user`.

use std::sync::Arc;

use rustls::HandshakeKind;
use shardis_tests::client::Client;
use shardis_tests::tls::{Authority, Secured, Subject};
use shardis_tests::{info, node};

/// A server that takes users from a field of certificates, with certificates for some names.
fn start(field: &str, options: &[&str]) -> Secured {
    let authority = Authority::new();
    for name in ["orders", "billing", "nobody"] {
        let uri = format!("spiffe://shop/{name}");
        authority.issue(
            name,
            &Subject {
                uris: &["urn:not-a-user", &uri],
                ..Subject::named(name)
            },
        );
    }
    let mut all = vec!["--tls-auth-clients-user", field];
    all.extend(options);
    Secured::start_with(authority, node::launch(2), &all)
}

fn whoami(client: &mut Client) -> String {
    client.line("ACL WHOAMI").text()
}

#[test]
fn the_common_name_is_the_user() {
    let server = start("cn", &[]);
    let mut control = server.process.connect();
    control.line("ACL SETUSER orders on resetpass ~orders:* +@all");
    let mut client = server.connect(Some("orders"));
    assert_eq!(whoami(&mut client), "orders");
    assert_eq!(client.line("SET orders:1 x").text(), "OK");
    assert_eq!(
        client.line("SET other x").text(),
        "NOPERM No permissions to access a key"
    );
    assert!(client.line("CLIENT INFO").text().contains(" user=orders "));
    // The user goes, and with it the client; and comes back as somebody else.
    control.line("ACL DELUSER orders");
    assert!(client.is_closed_within(shardis_tests::client::PATIENCE));
    assert_eq!(whoami(&mut server.connect(Some("orders"))), "default");
    // Off: certificates are good for nothing but the connection.
    control.line("ACL SETUSER orders on resetpass +@all");
    control.line("CONFIG SET tls-auth-clients-user off");
    assert_eq!(whoami(&mut server.connect(Some("orders"))), "default");
}

#[test]
fn a_uri_may_be_the_user() {
    let server = start("uri", &[]);
    let mut control = server.process.connect();
    control.line("ACL SETUSER spiffe://shop/orders on resetpass +@all");
    assert_eq!(
        whoami(&mut server.connect(Some("orders"))),
        "spiffe://shop/orders"
    );
    assert_eq!(whoami(&mut server.connect(Some("billing"))), "default");
    let log = control.line("ACL LOG");
    assert_eq!(
        log.items()[0]
            .field("username")
            .map(|name| name.text())
            .as_deref(),
        Some("urn:not-a-user")
    );
}

#[test]
fn a_name_without_a_user_is_nobody_and_is_logged() {
    let server = start("CN", &[]);
    let mut control = server.process.connect();
    control.line("ACL SETUSER billing off resetpass +@all");
    let denied = |control: &mut Client| info::figure(control, "acl_access_denied_tls_cert");
    for (name, count) in [("nobody", 1), ("billing", 2)] {
        assert_eq!(whoami(&mut server.connect(Some(name))), "default");
        assert_eq!(denied(&mut control), count);
        let log = control.line("ACL LOG");
        let entry = &log.items()[0];
        let field = |name: &str| entry.field(name).map(|value| value.text()).unwrap_or_default();
        assert_eq!(
            [
                field("reason"),
                field("context"),
                field("object"),
                field("username")
            ],
            ["tls-cert", "toplevel", "", name]
        );
        assert!(field("client-info").contains("addr=127.0.0.1:"), "{entry:?}");
    }
    // Where everybody has to say who they are, such a client has said nothing.
    control.line("ACL SETUSER default resetpass >secret");
    let mut client = server.connect(Some("nobody"));
    assert!(client.line("PING").text().starts_with("NOAUTH"));
    assert_eq!(client.line("AUTH secret").text(), "OK");
    assert_eq!(whoami(&mut client), "default");
}

#[test]
fn a_user_without_passwords_is_reached_by_its_certificate_only() {
    let server = start("CN", &["--user", "default", "off"]);
    let mut client = server.connect(Some("nobody"));
    assert!(client.line("ACL WHOAMI").text().starts_with("NOAUTH"));
    // Nobody can set users up yet but one that the configuration names.
    let server = start(
        "CN",
        &[
            "--user",
            "default",
            "off",
            "--user",
            "orders",
            "on",
            "resetpass",
            "~*",
            "+@all",
        ],
    );
    let mut orders = server.connect(Some("orders"));
    assert_eq!(whoami(&mut orders), "orders");
    orders.line("ACL SETUSER leaked on >password ~* +@all");
    for attempt in ["AUTH orders x", "AUTH orders ''", "HELLO 3 AUTH orders x"] {
        let reply = server.connect(Some("nobody")).line(attempt).text();
        assert!(reply.starts_with("WRONGPASS"), "{attempt}: {reply}");
    }
    // A password that has leaked is worth nothing to those without a certificate.
    let without = Client::connect_tls(server.address(), &server.authority.client(None));
    let reply = without.and_then(|mut client| client.try_call(&["AUTH", "leaked", "password"]));
    assert!(reply.is_err(), "{reply:?}");
}

#[test]
fn a_resumed_session_has_the_user_of_this_moment() {
    let server = start("CN", &[]);
    let mut control = server.process.connect();
    control.line("ACL SETUSER orders on resetpass ~* +@all");
    let config = server.authority.client(Some("orders"));
    let connect = |config: &Arc<_>| {
        let mut client = Client::connect_tls(server.address(), config).expect("a connection");
        let user = whoami(&mut client);
        (
            user,
            client.session().conn.handshake_kind().expect("it is complete"),
        )
    };
    assert_eq!(connect(&config), ("orders".to_owned(), HandshakeKind::Full));
    assert_eq!(connect(&config), ("orders".to_owned(), HandshakeKind::Resumed));
    control.line("ACL SETUSER orders off");
    assert_eq!(connect(&config), ("default".to_owned(), HandshakeKind::Resumed));
    assert_eq!(info::figure(&mut control, "acl_access_denied_tls_cert"), 1);
}

#[test]
fn a_name_is_compared_to_its_end() {
    let server = start("CN", &[]);
    server.authority.issue("cut", &Subject::named("orders\0.evil"));
    server.authority.issue("longer", &Subject::named("orders2"));
    server.authority.issue("spaced", &Subject::named("orders "));
    server
        .process
        .connect()
        .line("ACL SETUSER orders on nopass ~* +@all");
    for name in ["cut", "longer", "spaced"] {
        assert_eq!(whoami(&mut server.connect(Some(name))), "default", "{name}");
    }
}

#[test]
fn the_audit_log_names_the_certificate() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("audit.log");
    let server = start("off", &["--audit-log", &file.display().to_string()]);
    let mut client = server.connect(Some("billing"));
    client.line("AUTH nobody x");
    let mut plain = server.process.connect();
    plain.line("AUTH nobody x");
    shardis_tests::wait::wait_until("everything is written", || {
        info::figure(&mut plain, "audit_lines_waiting") == 0
    });
    let text = std::fs::read_to_string(&file).expect("the audit log");
    let certificates: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|line| line["reason"] == "auth")
        .map(|line| line["certificate"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(certificates, [Some("billing".to_owned()), None], "{text}");
}
