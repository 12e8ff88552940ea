import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';

/** What `@grpc/grpc-js` uses of a method's definition at a client. */
interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (message: object) => Buffer;
  readonly responseDeserialize: (bytes: Uint8Array) => object;
  readonly responseSerialize?: (message: object) => Buffer;
  readonly originalName: string;
}

interface Loader {
  fromJSON(definition: object, options: object): Readonly<Record<string, Readonly<Record<string, Method>>>>;
}

const require = createRequire(import.meta.url);
const requireOfEtcd3 = createRequire(require.resolve('etcd3'));
const requireOfLoader = createRequire(requireOfEtcd3.resolve('@grpc/proto-loader'));
const { Root } = requireOfLoader('protobufjs') as {
  Root: new () => { loadSync(file: string, options: object): { toJSON(): object } };
};
const original = requireOfEtcd3('@grpc/proto-loader') as Loader;
const ours = require('../../../.ci/service-loader.cjs') as Loader;

/** As etcd3 has it. */
const OPTIONS = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };

describe('service loader', () => {
  const proto = path.join(path.dirname(require.resolve('etcd3')), '../proto/rpc.proto');
  const definition = new Root().loadSync(proto, { keepCase: true }).toJSON();
  const expected = Object.entries(original.fromJSON(definition, OPTIONS)).filter(([, each]) => !('format' in each));
  const actual = ours.fromJSON(definition, OPTIONS);

  it('has the services and methods of etcd as @grpc/proto-loader has them', () => {
    const facts = (methods: Readonly<Record<string, Method>>): object[] =>
      Object.entries(methods).map(([name, { path, requestStream, responseStream, originalName }]) => ({
        ...{ name, path, requestStream, responseStream, originalName },
      }));
    assert.deepEqual(
      Object.entries(actual).map(([name, methods]) => [name, facts(methods)]),
      expected.map(([name, methods]) => [name, facts(methods)]),
    );
    assert.ok(actual['etcdserverpb.Watch']?.['Watch']?.responseStream);
  });

  it('writes and reads messages as @grpc/proto-loader does', () => {
    const theirs = Object.fromEntries(expected);
    const request = { key: Buffer.from('key'), range_end: Buffer.from('kez'), revision: '9007199254740993', limit: 2 };
    const range = (all: typeof actual): Method | undefined => all['etcdserverpb.KV']?.['Range'];
    const written = range(actual)?.requestSerialize(request);
    assert.deepEqual(written, range(theirs)?.requestSerialize(request));
    assert.ok((written?.length ?? 0) > 20);

    const header = { revision: '9223372036854775807' };
    const answer = range(theirs)?.responseSerialize?.({ header, kvs: [{ key: Buffer.from('key'), lease: '-2' }] });
    assert.ok(answer !== undefined && answer.length > 0);
    const read = range(actual)?.responseDeserialize(answer);
    assert.deepEqual(read, range(theirs)?.responseDeserialize(answer));
    assert.equal((read as { header: typeof header }).header.revision, header.revision);
  });
});
