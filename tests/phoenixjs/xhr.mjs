// The part of XMLHttpRequest that phoenix.js uses, for Node.js, which has fetch alone.

export class FetchedRequest {
  headers = {};
  timeout = 0;
  readyState = 0;
  status = 0;
  responseText = "";

  open(method, url) {
    this.method = method;
    this.url = url;
  }

  setRequestHeader(name, value) { this.headers[name] = value; }

  send(body) {
    this.controller = new AbortController();
    this.timer = this.timeout && setTimeout(() => this.abort(() => this.ontimeout?.()), this.timeout);
    const { method, headers, controller: { signal } } = this;
    fetch(this.url, { method, headers, body: body ?? undefined, signal })
      .then(async (response) => [response.status, await response.text()])
      .then((answer) => this.settle(...answer), () => this.fail());
  }

  abort(then) {
    this.aborted = then ?? (() => {});
    this.controller.abort();
  }

  settle(status, text) {
    clearTimeout(this.timer);
    Object.assign(this, { readyState: 4, status, responseText: text });
    this.onreadystatechange?.();
  }

  // As in browsers: a failed request is complete, without a status, before its error.
  fail() {
    if (this.aborted) return void this.aborted();
    this.settle(0, "");
    this.onerror?.();
  }
}
