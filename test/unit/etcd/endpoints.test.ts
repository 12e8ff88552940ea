import assert from 'node:assert/strict';
import { layoutKeys, parseEndpoints } from '../../../src/etcd/endpoints.js';

describe('parseEndpoints', () => {
  for (const [text, hasCertificates, targets, isTls] of [
    ['http://127.0.0.1:4001,http://127.0.0.1:2379', false, ['127.0.0.1:4001', '127.0.0.1:2379'], false],
    ['http://192.0.2.1:2379', true, ['192.0.2.1:2379'], false],
    ['https://etcd.example.org', false, ['etcd.example.org:2379'], true],
    ['192.0.2.1:2379', true, ['192.0.2.1:2379'], true],
    ['192.0.2.1:2379', false, ['192.0.2.1:2379'], false],
    ['https://192.0.2.1:2379,http://192.0.2.2:2379', false, ['192.0.2.1:2379', '192.0.2.2:2379'], true],
    ['http://192.0.2.1:2379,https://192.0.2.2:2379', true, ['192.0.2.1:2379', '192.0.2.2:2379'], false],
    [' http://192.0.2.1:2379/ , ,http://192.0.2.1:2379', false, ['192.0.2.1:2379'], false],
    ['HTTPS://[2001:db8::1]:2379', false, ['[2001:db8::1]:2379'], true],
    ['http://[2001:db8::1]', false, ['[2001:db8::1]:2379'], false],
    ['unix:///run/etcd.sock', true, ['unix:/run/etcd.sock'], false],
    ['unixs:///run/etcd.sock', false, ['unix:/run/etcd.sock'], true],
  ] as const) {
    it(`reads ${text}${hasCertificates ? ' with certificates' : ''}`, () => {
      assert.deepEqual(parseEndpoints(text, hasCertificates), { targets, isTls });
    });
  }

  for (const text of ['', ' , ', 'ftp://192.0.2.1', 'http://', 'http://192.0.2.1:99999', 'http://a b', 'unix://']) {
    it(`refuses "${text}"`, () => {
      assert.throws(() => parseEndpoints(text, false), { code: 'ERR_ETCD_ENDPOINT', hint: /--etcd-endpoints/ });
    });
  }
});

describe('layoutKeys', () => {
  for (const [prefix, config, subnets, own] of [
    ['/coreos.com/network', '/coreos.com/network/config', '/coreos.com/network/subnets/', '/coreos.com/network-ts/'],
    ['/coreos.com/network/', '/coreos.com/network/config', '/coreos.com/network/subnets/', '/coreos.com/network-ts/'],
    ['//coreos.com//network', '/coreos.com/network/config', '/coreos.com/network/subnets/', '/coreos.com/network-ts/'],
    ['coreos.com/network', 'coreos.com/network/config', 'coreos.com/network/subnets/', 'coreos.com/network-ts/'],
    ['/a/../b/.', '/b/config', '/b/subnets/', '/b-ts/'],
    ['/', '/config', '/subnets/', '/-ts/'],
    ['', 'config', 'subnets/', '-ts/'],
  ] as const) {
    it(`cleans "${prefix}" like a file path and adds no slash in front`, () => {
      assert.deepEqual(layoutKeys(prefix), { config, subnets, own });
    });
  }
});
