// Lint rules; the one about imports is explained in imports.mjs.
import path from 'node:path';
import importX from 'eslint-plugin-import-x';
import tseslint from 'typescript-eslint';
import { importRule } from './imports.mjs';

const root = path.resolve(import.meta.dirname, '..');
const PROJECTS = ['test/tsconfig.json', 'src/observe/page/tsconfig.json'].map((file) => path.join(root, file));

export default tseslint.config(
  { ignores: ['dist/', 'native/build/', 'native/prebuilds/', 'test/native/build/', 'bench/results/'] },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    plugins: { 'import-x': importX, tsflannel: { rules: { imports: importRule(root) } } },
    languageOptions: { parserOptions: { project: PROJECTS, tsconfigRootDir: root } },
    rules: {
      'tsflannel/imports': 'error',
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
