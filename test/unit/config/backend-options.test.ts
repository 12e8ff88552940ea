import assert from 'node:assert/strict';
import { readBackendOptions } from '../../../src/config/backend-options.js';
import { parseNetworkConfig } from '../../../src/config/network-config.js';
import { OverlayError, describeError } from '../../../src/errors.js';
import type { JsonValue } from '../../../src/json.js';

const RULES = {
  port: { key: 'Port', kind: 'int', min: 1, max: 65535, default: 8285 },
  learning: { key: 'Learning', kind: 'bool', default: false },
  psk: { key: 'PSK', kind: 'string', default: '' },
  mode: { key: 'Mode', kind: 'choice', choices: ['off', 'outer'], default: 'outer' },
} as const;

function read(backend: Readonly<Record<string, JsonValue>>): unknown {
  return readText(JSON.stringify({ Type: 'test', ...backend }));
}

function readText(backend: string): unknown {
  const text = `{"Network":"10.5.0.0/16","Backend":${backend}}`;
  return readBackendOptions('test', parseNetworkConfig(text).backendOptions, RULES);
}

describe('readBackendOptions', () => {
  it('gives defaults for absent keys and for null', () => {
    const defaults = { port: 8285, learning: false, psk: '', mode: 'outer' };
    assert.deepEqual(read({}), defaults);
    assert.deepEqual(read({ Port: null, Learning: null, PSK: null, Mode: null }), defaults);
  });

  it('finds keys in any case and ignores the others', () => {
    assert.deepEqual(read({ PORT: 65535, learning: true, Psk: 'x', mode: 'off', Other: 'y' }), {
      port: 65535,
      learning: true,
      psk: 'x',
      mode: 'off',
    });
  });

  for (const [key, value, message] of [
    [
      'Port',
      0,
      /Backend\.Port is 0; set it to a whole number from 1 to 65535, without quotes, or leave it out for 8285/,
    ],
    ['Port', 65536, /Backend\.Port is 65536/],
    ['Port', '8285', /Backend\.Port is "8285"/],
    ['Learning', 'true', /Backend\.Learning is "true"; set it to true or false, without quotes/],
    ['Learning', 1, /Backend\.Learning is 1/],
    ['PSK', 7, /Backend\.PSK is 7; set it to a text/],
    ['Mode', 'strict', /Backend\.Mode is "strict"; set it to one of off, outer/],
  ] as const) {
    it(`refuses ${key} ${JSON.stringify(value)} and says what fits`, () => {
      assert.throws(
        () => read({ [key]: value }),
        (error: unknown) => {
          assert.ok(error instanceof OverlayError);
          assert.equal(error.code, 'ERR_BACKEND_OPTION');
          assert.match(describeError(error), message);
          return true;
        },
      );
    });
  }

  for (const literal of ['1.0', '1e2', '1.5', '-0.5']) {
    it(`refuses ${literal} where flannel reads an integer, and nowhere else`, () => {
      assert.throws(
        () => readText(`{"Type":"test","port":${literal}}`),
        (error: unknown) => {
          assert.ok(error instanceof OverlayError);
          assert.equal(error.code, 'ERR_BACKEND_OPTION');
          const [, text] = /^(.*); set it to a whole number from 1 to 65535/.exec(describeError(error)) ?? [];
          assert.equal(
            text,
            `cannot use backend test: Backend.Port is ${literal}, which is not written as a whole number`,
          );
          return true;
        },
      );
      assert.doesNotThrow(() => readText(`{"Type":"test","Other":${literal}}`));
    });
  }
});
