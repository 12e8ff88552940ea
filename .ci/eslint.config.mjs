// Lint rules, including the direction of imports of the design:
// ip, errors, log, clock, printable, deadline ← sys ← netlink, etcd, lease, config ← reconcile, dataplane, underlay, firewall
//   ← backend ← docker, observe, reach, systemd ← daemon ← bin
import path from 'node:path';
import importX from 'eslint-plugin-import-x';
import tseslint from 'typescript-eslint';

const root = path.resolve(import.meta.dirname, '..');

/** Each row may import its own row and the rows above it. */
const layers = [
  [
    'ip',
    'errors.ts',
    'log.ts',
    'log-level.ts',
    'gatherer.ts',
    'clock.ts',
    'printable.ts',
    'deadline.ts',
    'process-guard.ts',
  ],
  ['sys'],
  ['netlink', 'lease', 'config', 'etcd'],
  ['reconcile', 'dataplane', 'underlay', 'firewall'],
  ['backend'],
  ['docker', 'observe', 'reach', 'systemd'],
  ['daemon.ts', 'daemon', 'ctl'],
  ['bin'],
];

const zones = layers.slice(0, -1).flatMap((members, level) =>
  members.map((member) => ({
    target: `./src/${member}`,
    from: layers
      .slice(level + 1)
      .flat()
      .map((higher) => `./src/${higher}`),
    message: 'Imports point one way; see the layers in .ci/eslint.config.mjs.',
  })),
);
zones.push({ target: './src/lease', from: ['./src/etcd'], message: 'Nothing but the composition root knows etcd.' });
zones.push({ target: './src', from: ['./test', './bench'], message: 'The program does not depend on its tests.' });

export default tseslint.config(
  { ignores: ['dist/', 'native/build/', 'native/prebuilds/', 'test/native/build/', 'bench/results/'] },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    plugins: { 'import-x': importX },
    languageOptions: { parserOptions: { project: path.join(root, 'test/tsconfig.json'), tsconfigRootDir: root } },
    settings: {
      'import-x/resolver-next': [
        importX.createNodeResolver({ extensions: ['.ts', '.js'], extensionAlias: { '.js': ['.ts', '.js'] } }),
      ],
    },
    rules: {
      'import-x/no-restricted-paths': ['error', { basePath: root, zones }],
      'import-x/no-cycle': ['error', { ignoreExternal: true }],
      'import-x/no-default-export': 'error',
      'no-warning-comments': ['error', { terms: ['todo', 'fixme', 'xxx', 'hack'] }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-extraneous-class': 'off',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { arguments: false } }],
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: { '@typescript-eslint/no-unused-expressions': 'off', '@typescript-eslint/no-non-null-assertion': 'off' },
  },
);
