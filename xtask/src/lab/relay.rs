//! A way from the machine's loopback to the dashboard inside: the listening socket was made outside,
//! and a socket stays in the network namespace it was made in.

use std::net::Ipv4Addr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The dashboard's usual port.
const DASHBOARD: u16 = 7878;

/// Binds the outer end: the dashboard's usual port, or any other where that is taken. The dashboard
/// inside gets the same port, because it checks the Host that a browser names.
pub(crate) fn bind() -> std::io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, DASHBOARD))
        .or_else(|_taken| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
}

/// Carries connections from `outer` to the same address on this side until dropped.
pub(crate) async fn run(outer: TcpListener) {
    let Ok(inner) = outer.local_addr() else { return };
    let mut carried = JoinSet::new();
    while let Ok((mut client, _)) = outer.accept().await {
        while carried.try_join_next().is_some() {}
        carried.spawn(async move {
            if let Ok(mut dashboard) = TcpStream::connect(inner).await {
                // How either end closes is between the two of them.
                let _closed = copy_bidirectional(&mut client, &mut dashboard).await;
            }
        });
    }
}
