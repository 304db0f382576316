//! What serves at the doors in other network namespaces: the same as at those outside.

use std::{io, sync::Arc};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};

use crate::{
    conn::Stages,
    dns,
    drain::Tasks,
    listen::{self, Places},
    namespaces::{Opened, Serve, Serving},
};

/// Carries what comes to doors through the same stages, to the same DNS server, and within the same
/// bounds.
pub(super) fn serve(
    stages: Arc<Stages>,
    dns: Arc<dns::Server>,
    connections: Tasks,
    places: Places,
    drain: watch::Receiver<bool>,
) -> Serve {
    Arc::new(move |opened: Opened| -> io::Result<Serving> {
        let Opened { netns, listeners, dns_udp, dns_tcp } = opened;
        let mut serving = JoinSet::new();
        for listener in listeners {
            let door = listener.local_addr()?.port();
            let (stages, connections) = (stages.clone(), connections.clone());
            let carry = move |accepted| connections.spawn(stages.clone().run(accepted));
            let listener = TcpListener::from_std(listener)?;
            serving.spawn(listen::accept(listener, Some(netns), door, places.clone(), drain.clone(), carry));
        }
        for socket in dns_udp {
            serving.spawn(dns.clone().serve_udp(UdpSocket::from_std(socket)?, Some(netns)));
        }
        for listener in dns_tcp {
            serving.spawn(dns.clone().serve_tcp(TcpListener::from_std(listener)?, Some(netns)));
        }
        // Dropped with the future: then nothing is accepted there any more.
        Ok(Box::pin(async move { while serving.join_next().await.is_some() {} }))
    })
}
