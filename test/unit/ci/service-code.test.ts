import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';
import { compileFunction } from 'node:vm';
import { serviceCode } from '../../../.ci/service-code.mjs';

/** What `@grpc/grpc-js` uses of a method's definition at a client; a server uses the others. */
interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly originalName: string;
  requestSerialize(message: object): Buffer;
  responseDeserialize(bytes: Uint8Array): object;
  requestDeserialize?(bytes: Uint8Array): object;
  responseSerialize?(message: object): Buffer;
}

type Services = Readonly<Record<string, Readonly<Record<string, Method>>>>;

interface Loader {
  loadSync(file: string, options: object): Services;
}

/** A type of protobufjs. */
interface Reflected {
  readonly name: string;
  readonly fieldsArray: readonly Field[];
}

interface Field {
  readonly name: string;
  readonly type: string;
  readonly repeated: boolean;
  readonly partOf: object | null;
  readonly resolvedType: Reflected | { readonly values: Readonly<Record<string, number>> } | null;
}

interface ReflectedMethod {
  readonly resolvedRequestType: Reflected;
  readonly resolvedResponseType: Reflected;
}

interface Reflection {
  lookupService(name: string): { readonly methods: Readonly<Record<string, ReflectedMethod>> };
}

const require = createRequire(import.meta.url);
const requireOfEtcd3 = createRequire(require.resolve('etcd3'));
const requireOfLoader = createRequire(requireOfEtcd3.resolve('@grpc/proto-loader'));
const { Root } = requireOfLoader('protobufjs') as {
  Root: new () => { loadSync(file: string, options: object): { resolveAll(): Reflection } };
};

/** As etcd3 has it. */
const OPTIONS = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const PROTO = path.join(path.dirname(require.resolve('etcd3')), '../proto/rpc.proto');
const SERVICES = ['etcdserverpb.KV', 'etcdserverpb.Lease', 'etcdserverpb.Watch', 'etcdserverpb.Auth'];
/** Operations of a transaction may be transactions. */
const DEPTH = 3;

describe('serviceCode', () => {
  const reflection = new Root().loadSync(PROTO, { keepCase: true }).resolveAll();
  const theirs = (requireOfEtcd3('@grpc/proto-loader') as Loader).loadSync(PROTO, OPTIONS);
  const ours = evaluate(serviceCode(PROTO, SERVICES)).loadSync('', OPTIONS);
  const methods = SERVICES.flatMap((service) =>
    Object.keys(theirs[service] ?? {}).map((name) => {
      const [mine, original] = [ours[service]?.[name], theirs[service]?.[name]];
      const types = reflection.lookupService(service).methods[name];
      assert.ok(mine !== undefined && original !== undefined && types !== undefined, `${service}.${name}`);
      return { name: `${service}.${name}`, mine, original, types };
    }),
  );

  it('has the wanted services with their methods, as @grpc/proto-loader has them', () => {
    assert.deepEqual(Object.keys(ours), SERVICES);
    const facts = ({ path, requestStream, responseStream, originalName }: Method): object => ({
      ...{ path, requestStream, responseStream, originalName },
    });
    for (const { name, mine, original } of methods) assert.deepEqual(facts(mine), facts(original), name);
    assert.ok(methods.some(({ mine }) => mine.responseStream) && methods.length > 20);
  });

  it('writes every request as @grpc/proto-loader does, whatever of it is set', () => {
    for (const { name, mine, original, types } of methods) {
      for (const message of samplesOf(types.resolvedRequestType)) {
        assert.deepEqual(mine.requestSerialize(message), original.requestSerialize(message), name);
      }
    }
  });

  it('reads every answer as @grpc/proto-loader does, whatever of it is set', () => {
    for (const { name, mine, original, types } of methods) {
      for (const message of samplesOf(types.resolvedResponseType)) {
        const bytes = original.responseSerialize?.(message) ?? Buffer.alloc(0);
        assert.deepEqual(mine.responseDeserialize(bytes), original.responseDeserialize(bytes), name);
      }
    }
  });

  it('refuses what @grpc/proto-loader refuses', () => {
    const [range, original] = [ours, theirs].map((each) => each['etcdserverpb.KV']?.['Range']);
    assert.ok(range !== undefined && original !== undefined);
    const cut = original.responseSerialize?.({ kvs: [{ key: Buffer.from('key') }] }).subarray(0, -1) ?? Buffer.alloc(0);
    for (const each of [range, original]) assert.throws(() => each.responseDeserialize(cut), RangeError);
    const txn = ours['etcdserverpb.KV']?.['Txn'];
    assert.throws(() => txn?.requestSerialize({ compare: 1 }), /compare: array expected/);
  });

  it('refuses a service that is not there', () => {
    assert.throws(() => serviceCode(PROTO, ['etcdserverpb.Nonsense']), /no such Service/);
  });
});

function evaluate(code: string): Loader {
  const exports = {};
  const run = compileFunction(code, ['require', 'exports']) as (require: NodeJS.Require, exports: object) => void;
  run(require, exports);
  return exports as Loader;
}

/** Messages of a type: an empty one, one with everything set, and one for each of its fields alone. */
function samplesOf(type: Reflected): readonly object[] {
  const alone = type.fieldsArray.flatMap((field) => valuesOf(field, DEPTH).map((value) => ({ [field.name]: value })));
  return [{}, messageOf(type, DEPTH), ...alone];
}

/** With a value for every field; of those that exclude each other, the last one that is set counts. */
function messageOf(type: Reflected, depth: number): object {
  const fields = type.fieldsArray.map((field) => [field.name, valuesOf(field, depth).at(-1)] as const);
  return Object.fromEntries(fields.filter(([, value]) => value !== undefined));
}

function valuesOf(field: Field, depth: number): readonly unknown[] {
  const values = scalarsOf(field, depth);
  return field.repeated ? [[], values] : values;
}

function scalarsOf({ type, resolvedType }: Field, depth: number): readonly unknown[] {
  if (resolvedType !== null && 'values' in resolvedType) return [...Object.keys(resolvedType.values), 77];
  if (resolvedType !== null) return depth === 0 ? [] : [{}, messageOf(resolvedType, depth - 1)];
  switch (type) {
    case 'bytes':
      return [Buffer.alloc(0), Buffer.from('\0key\xff', 'latin1'), Buffer.from('text').toString('base64')];
    case 'string':
      return ['', 'größer', 5];
    case 'bool':
      return [false, true];
    default:
      return ['0', 1, '9007199254740993', '-2'];
  }
}
