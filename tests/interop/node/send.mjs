// Sends logs, metrics and traces of the Node SDK to two places at once:
//
//     node send.mjs grpc|proto|json none|gzip COUNT ENDPOINT ENDPOINT
//
// Both get the same, so what arrives behind the first can be compared with what arrives at the second. Ends with 1 if
// either refuses anything.

import { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { OTLPLogExporter as GrpcLogs } from '@opentelemetry/exporter-logs-otlp-grpc';
import { OTLPLogExporter as JsonLogs } from '@opentelemetry/exporter-logs-otlp-http';
import { OTLPLogExporter as ProtoLogs } from '@opentelemetry/exporter-logs-otlp-proto';
import { OTLPMetricExporter as GrpcMetrics } from '@opentelemetry/exporter-metrics-otlp-grpc';
import { OTLPMetricExporter as JsonMetrics } from '@opentelemetry/exporter-metrics-otlp-http';
import { OTLPMetricExporter as ProtoMetrics } from '@opentelemetry/exporter-metrics-otlp-proto';
import { OTLPTraceExporter as GrpcTraces } from '@opentelemetry/exporter-trace-otlp-grpc';
import { OTLPTraceExporter as JsonTraces } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as ProtoTraces } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs';
import { MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';

const [protocol, compression, count, ...endpoints] = process.argv.slice(2);
const exporters = {
  grpc: { logs: GrpcLogs, metrics: GrpcMetrics, traces: GrpcTraces },
  proto: { logs: ProtoLogs, metrics: ProtoMetrics, traces: ProtoTraces },
  json: { logs: JsonLogs, metrics: JsonMetrics, traces: JsonTraces },
}[protocol];

class ToAll {
  constructor(signal) {
    this.exporters = endpoints.map(endpoint => {
      const url = protocol === 'grpc' ? endpoint : `${endpoint}/v1/${signal}`;
      return new exporters[signal]({ url, compression });
    });
  }

  export(items, done) {
    let waiting = this.exporters.length;
    for (const exporter of this.exporters) {
      exporter.export(items, result => {
        if (result.code !== 0) {
          console.error(result.error);
          process.exitCode = 1;
        }
        if (--waiting === 0) done({ code: 0 });
      });
    }
  }

  forceFlush() {
    return Promise.all(this.exporters.map(exporter => exporter.forceFlush()));
  }

  shutdown() {
    return Promise.all(this.exporters.map(exporter => exporter.shutdown()));
  }
}

const resource = resourceFromAttributes({ 'service.name': 'node-shop', 'host.cpus': 2, 'shop.open': true });
const tracers = new BasicTracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor(new ToAll('traces'))],
});
const loggers = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: new ToAll('logs') })],
});
const meters = new MeterProvider({
  resource,
  readers: [new PeriodicExportingMetricReader({ exporter: new ToAll('metrics'), exportIntervalMillis: 3_600_000 })],
});

const tracer = tracers.getTracer('shop.http', '1.2.3');
const logger = loggers.getLogger('shop.log', '1.2.3');
const meter = meters.getMeter('shop.meter', '1.2.3');
const orders = meter.createCounter('orders', { unit: '{order}', description: 'Orders placed' });
const queue = meter.createUpDownCounter('queue.depth');
const temperature = meter.createGauge('temperature', { unit: 'Cel' });
const latency = meter.createHistogram('latency', { unit: 's' });

for (let number = 0; number < Number(count); number++) {
  const parent = tracer.startSpan(`GET /cart/${number % 7}`, { kind: SpanKind.SERVER, attributes: { 'http.status': 200 } });
  const inner = trace.setSpan(ROOT_CONTEXT, parent);
  const child = tracer.startSpan('SELECT', { kind: SpanKind.CLIENT, links: [{ context: parent.spanContext() }] }, inner);
  child.addEvent('retry', { attempt: number, why: 'größe ✓', shares: [0.5, 1.25] });
  child.recordException(new Error(`no item ${number}`));
  child.setStatus({ code: SpanStatusCode.ERROR, message: 'gone' });
  child.end();
  parent.end();
  logger.emit({
    severityNumber: 9 + (number % 12),
    severityText: 'SOME',
    eventName: 'shop.event',
    body: number % 2 ? `user ${number} added an item` : { user: number, items: ['a', { b: 2.5 }], paid: null },
    attributes: { 'user.id': number, ratio: number / 3, tags: ['x', 'y'] },
    context: inner,
  });
  orders.add(1, { shard: number % 50 });
  queue.add(-number, { shard: number % 50 });
  temperature.record(number / 7, { shard: number % 50 });
  latency.record(number / 1000, { shard: number % 50 });
}
await Promise.all([tracers.shutdown(), loggers.shutdown(), meters.shutdown()]);
