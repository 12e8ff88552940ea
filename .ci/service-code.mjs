// What @grpc/proto-loader does for a client at each start, done once: it reads an interface definition and writes a
// module that encodes and decodes the messages of some of its services. That module needs the small part of protobufjs
// only, and nothing is made of texts at run time, which took a tenth of the daemon's start.
import { createRequire } from 'node:module';

const requireOfEtcd3 = createRequire(createRequire(import.meta.url).resolve('etcd3'));
const requireOfLoader = createRequire(requireOfEtcd3.resolve('@grpc/proto-loader'));
const { Enum, Root, Type, converter, decoder, encoder, wrappers } = requireOfLoader('protobufjs');
const camelCase = requireOfLoader('lodash.camelcase');

/** The small part of protobufjs, wherever the module will lie. */
const RUNTIME = requireOfLoader.resolve('protobufjs/minimal');

/**
 * A CommonJS module with one function, `loadSync(file, options)`, which stands for that of @grpc/proto-loader: its result
 * is what `loadPackageDefinition` of @grpc/grpc-js takes. The file counts for nothing, as it has been read here; the
 * options say how answers are made objects, see `IConversionOptions` of protobufjs.
 *
 * @param proto - path of the interface definition.
 * @param services - the full names of those that are wanted, such as `etcdserverpb.KV`.
 * @throws Error for a service that the definition does not have, and for a message that protobufjs handles by a rule of
 *   its own.
 */
export function serviceCode(proto, services) {
  const root = new Root().loadSync(proto, { keepCase: true }).resolveAll();
  const methods = services.map((name) => [name, root.lookupService(name).methodsArray]);
  const all = methods.flatMap(([, each]) => each);
  const sent = typesUsedBy(all.map(({ resolvedRequestType }) => resolvedRequestType));
  const received = typesUsedBy(all.map(({ resolvedResponseType }) => resolvedResponseType));
  const used = [...new Set([...sent, ...received])];
  const messages = used.filter((type) => type instanceof Type);
  return [
    `const { Reader, Writer, util } = require(${JSON.stringify(RUNTIME)});`,
    'const serializerOf = (type) => (message) => type.encode(type.fromObject(message)).finish();',
    'const deserializerOf = (type, options) => (bytes) => type.toObject(type.decode(bytes), options);',
    'const t = {};',
    ...used.filter((type) => type instanceof Enum).map((type) => `t[${nameOf(type)}] = ${enumCode(type)};`),
    ...messages.map((type) => `t[${nameOf(type)}] = ${messageCode(type, sent.has(type), received.has(type))};`),
    // Only now, as messages may contain each other.
    ...messages.map(linkCode),
    'exports.loadSync = (file, options) => ({',
    ...methods.map(([name, each]) => `${JSON.stringify(name)}: {${each.map(methodCode).join('')}},`),
    '});',
    '',
  ].join('\n');
}

const nameOf = ({ fullName }) => JSON.stringify(fullName.slice(1));

/** Those types and all that their fields have. */
function typesUsedBy(types) {
  const found = new Set(types);
  for (const type of found) {
    if (type instanceof Type) for (const each of typesOfFields(type)) if (each !== null) found.add(each);
  }
  return found;
}

/** null where a field has no type of the definition. */
const typesOfFields = (type) => type.fieldsArray.map((field) => field.resolve().resolvedType);

/** Names by number are inherited, as protobufjs has them: a look by number gives the name. */
function enumCode({ values, valuesById }) {
  return `{ values: { __proto__: ${JSON.stringify(valuesById)}, ...${JSON.stringify({ ...values })} } }`;
}

/** An object like a `Type` of protobufjs; its functions find the types of fields in `types`, by the place of the field. */
function messageCode(type, isSent, isReceived) {
  if (wrappers[type.fullName] !== undefined) throw new Error(`protobufjs has a rule of its own for ${type.fullName}`);
  const functions = {
    ctor: Type.generateConstructor(type),
    ...(isSent && { fromObject: converter.fromObject(type), encode: encoder(type) }),
    ...(isReceived && { decode: decoder(type), toObject: converter.toObject(type) }),
  };
  const members = Object.entries(functions).map(([name, code]) => `${name}: ${code.toString()},`);
  return `((types) => ({ types,\n${members.join('\n')}\n}))([])`;
}

function linkCode(type) {
  const types = typesOfFields(type).map((each) => (each === null ? 'null' : `t[${nameOf(each)}]`));
  return `t[${nameOf(type)}].types.push(${types.join(', ')});`;
}

function methodCode({ name, parent, requestStream, responseStream, resolvedRequestType, resolvedResponseType }) {
  const facts = {
    path: `/${parent.fullName.slice(1)}/${name}`,
    requestStream: requestStream === true,
    responseStream: responseStream === true,
    originalName: camelCase(name),
  };
  return `
    ${name}: {
      ...${JSON.stringify(facts)},
      requestSerialize: serializerOf(t[${nameOf(resolvedRequestType)}]),
      responseDeserialize: deserializerOf(t[${nameOf(resolvedResponseType)}], options),
    },`;
}
