// Rooms that are subscriptions of @absinthe/socket, unmodified; see clients.mjs.
//
// Each result of a subscription has either the whole list of presences or a shout.

const SUBSCRIPTION = `subscription Room($topic: String!, $meta: Meta!) {
  room(topic: $topic, meta: $meta) { presences shout }
}`;
const DOCUMENTS = {
  echo: "mutation Echo($n: Int!) { echo(n: $n) }",
  refuse: "mutation Refuse { refuse }",
};
const sockets = new Map();

const refsOf = (metas) => metas.map((meta) => meta.phx_ref);

/** The refs in one list of presences that are not in another, as entries of a log. */
function changes(what, from, to) {
  return Object.entries(to).flatMap(([key, { metas }]) => {
    const known = refsOf(from[key]?.metas ?? []);
    const refs = refsOf(metas).filter((ref) => !known.includes(ref));
    return refs.length ? [[what, key, refs]] : [];
  });
}

/** The class of rooms that use the library. */
export function subscriptions(absinthe) {
  return class Subscription {
    state = {};
    log = [];
    received = [];
    joins = 0;

    constructor({ socket }, topic, { meta }) {
      if (!sockets.has(socket)) sockets.set(socket, absinthe.create(socket));
      this.socket = sockets.get(socket);
      this.request = { operation: SUBSCRIPTION, variables: { topic, meta } };
    }

    join() {
      return new Promise((resolve) => {
        this.notifier = absinthe.send(this.socket, this.request);
        this.notifier = absinthe.observe(this.socket, this.notifier, {
          onStart: () => { this.joins += 1; resolve({ status: "ok", response: {} }); },
          onAbort: (error) => resolve({ status: "error", response: error.message }),
          onResult: ({ data: { presences, shout } }) => {
            if (presences) this.show(presences);
            if (shout) this.received.push(["shout", shout]);
          },
        });
      });
    }

    push(event, variables) {
      return new Promise((resolve) => {
        const request = { operation: DOCUMENTS[event], variables };
        absinthe.observe(this.socket, absinthe.send(this.socket, request), {
          onAbort: (error) => resolve({ status: "error", response: error.message }),
          onResult: ({ data }) => resolve({ status: "ok", response: data[event] }),
        });
      });
    }

    leave() {
      absinthe.cancel(this.socket, this.socket.notifiers.find(({ request }) => request === this.notifier.request));
      return Promise.resolve({ status: "ok" });
    }

    show(presences) {
      this.log.push(...changes("join", this.state, presences), ...changes("leave", presences, this.state));
      this.state = presences;
      const listed = Object.entries(presences).map(([key, { metas }]) => [key, refsOf(metas)]);
      this.log.push(["sync", Object.fromEntries(listed)]);
    }

    look() {
      const { state, joins, received, log, socket } = this;
      this.log = [];
      return {
        state,
        list: Object.entries(state),
        status: socket.channel.state,
        joins,
        states: joins,
        response: null,
        received,
        log,
      };
    }
  };
}
