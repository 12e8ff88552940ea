import { switchFlag } from '../config/flag-values.js';
import { OverlayError } from '../errors.js';
import { type CtlContext, defineCommand, EXIT, printJson, STORE_FLAGS, withStore, YES_FLAG } from './command.js';
import { type Impact, configImpact } from './config-impact.js';
import { assertApplicable, checkConfig, readConfigFile, tryCheckConfig } from './config-validation.js';

/** `config set FILE` */
export const configSet = defineCommand({
  name: 'config set',
  summary: 'Write the network configuration after checking it and showing what changes for running hosts',
  description:
    'The configuration is written only if nobody else has written it since it was read. Daemons of this kind follow at once; flannel’s own read it when they are started.',
  operands: [
    { name: 'FILE', isOptional: false, help: 'a file with the configuration, or - for standard input', values: 'file' },
  ],
  flags: {
    ...STORE_FLAGS,
    ...YES_FLAG,
    'dry-run': switchFlag(false, { group: 'observe', help: 'Only show what would change.' }),
  },
  exits: ['differences', 'unreachable', 'refused'],
  async run(context, { operands, options }) {
    const checked = checkConfig(await readConfigFile(context, operands[0] ?? ''));
    return withStore(context, options, async (store) => {
      const current = await store.readConfig(context.signal);
      const { leases } = await store.listLeases(context.signal);
      const before = current === undefined ? undefined : tryCheckConfig(current.text);
      const isSame = current?.text === checked.text;
      await assertApplicable(checked, leases, options.etcdEndpoints);
      const impacts = isSame ? [] : configImpact(before, checked, leases);
      const report = { isSame, impacts, unknownKeys: checked.unknownKeys };

      if (!options.json) {
        showPlan(context, {
          ...report,
          isNew: current === undefined,
          wasBroken: current !== undefined && before === undefined,
        });
      }
      if (isSame || options.dryRun) {
        if (options.json) printJson(context, { ...report, revision: current?.revision ?? null, isWritten: false });
        return isSame ? EXIT.ok : EXIT.differences;
      }
      if (!options.yes && (await context.confirm('Write this configuration?')) !== true) {
        if (options.json) printJson(context, { ...report, revision: current?.revision ?? null, isWritten: false });
        context.err.line('nothing was written; say yes, or give --yes');
        return EXIT.refused;
      }
      const expected = current === undefined ? 'absent' : { revision: current.revision };
      const result = await store.writeConfig(checked.text, expected, context.signal);
      if (result.outcome === 'conflict') {
        throw new OverlayError(
          'ERR_CONFLICT',
          'cannot write the network configuration: somebody else has written it in the meantime',
          { hint: 'look at it with tsflannelctl config get, then run this again' },
        );
      }
      if (options.json) printJson(context, { ...report, revision: result.revision, isWritten: true });
      else context.out.line(`written at revision ${result.revision}`);
      return EXIT.ok;
    });
  },
});

function showPlan(
  context: CtlContext,
  plan: {
    readonly isSame: boolean;
    readonly isNew: boolean;
    readonly wasBroken: boolean;
    readonly impacts: readonly Impact[];
    readonly unknownKeys: readonly string[];
  },
): void {
  for (const key of plan.unknownKeys)
    context.err.line(`unknown key ${key}: nobody reads it; remove it, or fix its spelling`);
  if (plan.isSame) context.out.line('the configuration is the same, nothing to write');
  else if (plan.isNew) context.out.line('there is no configuration yet');
  else if (plan.wasBroken) context.out.line('the present configuration cannot be used by any daemon');
  else if (plan.impacts.length === 0) context.out.line('nothing changes for running hosts');
  for (const { message } of plan.impacts) context.out.line(`  ${message}`);
}
