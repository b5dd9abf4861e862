/** The HTTP server of metrics and health, for Prometheus and the kubelet. No authentication: choose a local address. */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { Registry } from 'prom-client';
import { splitHostPort } from '../util/host-port.ts';
import type { Health } from './health.ts';

export interface HttpOptions {
  /** `host:port`; IPv6 in brackets; no host: all addresses. */
  readonly address: string;
  readonly registry: Registry;
  readonly health: () => Health;
}

/**
 * Serves `/metrics`; `/healthz`: 200 while the process answers; `/readyz`: 200 if it is ready, 503 otherwise, with the
 * state in the first line and a trouble in each other one.
 * @throws Error that names the address where it cannot be listened on
 */
export async function serveHttp({ address, registry, health }: HttpOptions): Promise<Server> {
  const { host, port } = splitHostPort(address);
  const server = createServer(answer(registry, health));
  server.requestTimeout = 10_000;
  server.maxConnections = 32;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new Error(`metrics and health cannot be served on ${address}: ${cause.message}`, { cause })),
    );
    server.listen({ port, ...(host === '' ? {} : { host }) }, resolve);
  });
  return server;
}

const TEXT = { 'content-type': 'text/plain' };

function answer(registry: Registry, health: () => Health): RequestListener {
  return (request, response) => {
    const path = request.method === 'GET' || request.method === 'HEAD' ? request.url : undefined;
    switch (path) {
      case '/metrics':
        registry.metrics().then(
          (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
          (error: unknown) => response.writeHead(500, TEXT).end(`${String(error)}\n`),
        );
        return;
      case '/healthz':
        response.writeHead(200, TEXT).end('ok\n');
        return;
      case '/readyz': {
        const { ready, lines } = health();
        response.writeHead(ready ? 200 : 503, TEXT).end(`${lines.join('\n')}\n`);
        return;
      }
      default:
        response.writeHead(404, TEXT).end('only GET /metrics, /healthz and /readyz are here\n');
    }
  };
}
