// What @grpc/proto-loader makes of an interface definition for a client, in a tenth of its time: it also describes every
// message and encodes the descriptions, for servers that are asked what they offer.
const camelCase = require('lodash.camelcase');
const { Root, Service } = require('protobufjs/light');

/**
 * Stands in the bundles for `fromJSON` of @grpc/proto-loader.
 *
 * @param json - a definition as protobufjs writes it.
 * @param options - how answers are made objects, see `IConversionOptions` of protobufjs.
 * @returns what `loadPackageDefinition` of @grpc/grpc-js takes.
 */
exports.fromJSON = (json, options) => {
  const root = Root.fromJSON(json).resolveAll();
  const services = servicesBelow(root).map((service) => [service.fullName.slice(1), methodsOf(service, options)]);
  return Object.fromEntries(services);
};

function servicesBelow(namespace) {
  return namespace.nestedArray.flatMap((each) => {
    if (each instanceof Service) return [each];
    return each.nestedArray === undefined ? [] : servicesBelow(each);
  });
}

function methodsOf(service, options) {
  const methods = service.methodsArray.map((method) => [
    method.name,
    {
      path: `/${service.fullName.slice(1)}/${method.name}`,
      requestStream: method.requestStream === true,
      responseStream: method.responseStream === true,
      requestSerialize: serializerOf(method.resolvedRequestType),
      responseDeserialize: deserializerOf(method.resolvedResponseType, options),
      originalName: camelCase(method.name),
    },
  ]);
  return Object.fromEntries(methods);
}

const serializerOf = (type) => (message) => type.encode(type.fromObject(message)).finish();
const deserializerOf = (type, options) => (bytes) => type.toObject(type.decode(bytes), options);
