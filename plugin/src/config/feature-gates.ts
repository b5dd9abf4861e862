/**
 * Feature gates in the style of Antrea and Kubernetes (antrea-facts 6.1): Alpha is off by default, Beta on; a name that is not
 * known is an error. They are our own: Antrea's agent exits at a gate that it does not know.
 */

export type Stage = 'Alpha' | 'Beta' | 'GA' | 'Deprecated';

/** A gate as docs/feature-gates.md lists it. */
export interface Gate {
  readonly stage: Stage;
  readonly default: boolean;
  /** Version in which it came in its stage. */
  readonly since: string;
  /** One line for people. */
  readonly what: string;
}

export const FEATURE_GATES = {
  XMasq: { stage: 'Alpha', default: false, since: '0.1', what: 'accelerate pod traffic at all' },
  SameNode: { stage: 'Beta', default: true, since: '0.1', what: 'accelerate traffic between pods of one node, too' },
  FlowExport: { stage: 'Alpha', default: false, since: '0.1', what: "serve Antrea's FlowExportService" },
  FlowAccounting: {
    stage: 'Alpha',
    default: false,
    since: '0.1',
    what: 'export flow records that include accelerated bytes',
  },
} as const satisfies Readonly<Record<string, Gate>>;

export type GateName = keyof typeof FEATURE_GATES;
export type FeatureGates = Readonly<Record<GateName, boolean>>;

export const GATE_NAMES = Object.keys(FEATURE_GATES) as GateName[];
/** Set all gates of a stage at once; a gate that is named itself counts more. */
export const STAGE_TOGGLES = { AllAlpha: 'Alpha', AllBeta: 'Beta' } as const satisfies Readonly<Record<string, Stage>>;

/** What the configuration may say: any gate or toggle. */
export type GateSettings = { readonly [name in GateName | keyof typeof STAGE_TOGGLES]?: boolean | undefined };

/** Every gate's value. */
export function resolveGates(settings: GateSettings): FeatureGates {
  const value = (name: GateName): boolean => {
    const gate: Gate = FEATURE_GATES[name];
    const toggle = gate.stage === 'Alpha' ? settings.AllAlpha : gate.stage === 'Beta' ? settings.AllBeta : undefined;
    return settings[name] ?? toggle ?? gate.default;
  };
  return Object.fromEntries(GATE_NAMES.map((name) => [name, value(name)])) as FeatureGates;
}
