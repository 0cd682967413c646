"""One algorithm a file: its links, their state, and the optimizer as a short chain."""

from gradtx.optimizers._acprop import (
    acprop as acprop,
    scale_by_acprop as scale_by_acprop,
)
from gradtx.optimizers._adabelief import (
    ScaleByBeliefState as ScaleByBeliefState,
    adabelief as adabelief,
    scale_by_belief as scale_by_belief,
)
from gradtx.optimizers._adadelta import (
    ScaleByAdaDeltaState as ScaleByAdaDeltaState,
    adadelta as adadelta,
    scale_by_adadelta as scale_by_adadelta,
)
from gradtx.optimizers._adafactor import (
    FactoredState as FactoredState,
    adafactor as adafactor,
    scale_by_factored_rms as scale_by_factored_rms,
)
from gradtx.optimizers._adagrad import (
    ScaleByRssState as ScaleByRssState,
    adagrad as adagrad,
    scale_by_rss as scale_by_rss,
)
from gradtx.optimizers._adam import (
    ScaleByAdamState as ScaleByAdamState,
    adam as adam,
    adamw as adamw,
    nadam as nadam,
    nadamw as nadamw,
    scale_by_adam as scale_by_adam,
)
from gradtx.optimizers._adamax import (
    adamax as adamax,
    adamaxw as adamaxw,
    scale_by_adamax as scale_by_adamax,
)
from gradtx.optimizers._adan import (
    ScaleByAdanState as ScaleByAdanState,
    adan as adan,
    scale_by_adan as scale_by_adan,
)
from gradtx.optimizers._ademamix import (
    ScaleByAdemamixState as ScaleByAdemamixState,
    ScaleBySimplifiedAdEMAMixState as ScaleBySimplifiedAdEMAMixState,
    ademamix as ademamix,
    scale_by_ademamix as scale_by_ademamix,
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    simplified_ademamix as simplified_ademamix,
)
from gradtx.optimizers._adopt import (
    adopt as adopt,
    scale_by_adopt as scale_by_adopt,
)
from gradtx.optimizers._amsgrad import (
    ScaleByAmsgradState as ScaleByAmsgradState,
    amsgrad as amsgrad,
    scale_by_amsgrad as scale_by_amsgrad,
)
from gradtx.optimizers._cocob import (
    COCOBState as COCOBState,
    cocob as cocob,
    scale_by_cocob as scale_by_cocob,
)
from gradtx.optimizers._dadapt import (
    DAdaptAdamWState as DAdaptAdamWState,
    dadapt_adamw as dadapt_adamw,
)
from gradtx.optimizers._dog import (
    DoGState as DoGState,
    DoWGState as DoWGState,
    ScaleByDistanceOverGradientsState as ScaleByDistanceOverGradientsState,
    dog as dog,
    dowg as dowg,
    scale_by_distance_over_gradients as scale_by_distance_over_gradients,
    scale_by_dog as scale_by_dog,
    scale_by_dowg as scale_by_dowg,
)
from gradtx.optimizers._dpsgd import (
    dpsgd as dpsgd,
)
from gradtx.optimizers._galore import (
    GaLoreDimensionNumbers as GaLoreDimensionNumbers,
    GaLoreState as GaLoreState,
    galore as galore,
    scale_by_galore as scale_by_galore,
)
from gradtx.optimizers._layerwise import (
    fromage as fromage,
    lamb as lamb,
    lars as lars,
)
from gradtx.optimizers._lbfgs import (
    ScaleByLBFGSState as ScaleByLBFGSState,
    lbfgs as lbfgs,
    scale_by_lbfgs as scale_by_lbfgs,
)
from gradtx.optimizers._lion import (
    ScaleByLionState as ScaleByLionState,
    lion as lion,
    scale_by_lion as scale_by_lion,
)
from gradtx.optimizers._madgrad import (
    MadgradState as MadgradState,
    madgrad as madgrad,
    scale_by_madgrad as scale_by_madgrad,
)
from gradtx.optimizers._momo import (
    MomoAdamState as MomoAdamState,
    MomoState as MomoState,
    momo as momo,
    momo_adam as momo_adam,
)
from gradtx.optimizers._muon import (
    MuonState as MuonState,
    muon as muon,
    scale_by_muon as scale_by_muon,
    scale_by_shape as scale_by_shape,
)
from gradtx.optimizers._novograd import (
    ScaleByNovogradState as ScaleByNovogradState,
    novograd as novograd,
    scale_by_novograd as scale_by_novograd,
)
from gradtx.optimizers._optimistic import (
    optimistic_adam as optimistic_adam,
    optimistic_adam_v2 as optimistic_adam_v2,
    optimistic_gradient_descent as optimistic_gradient_descent,
)
from gradtx.optimizers._polyak import (
    polyak_sgd as polyak_sgd,
    scale_by_polyak as scale_by_polyak,
)
from gradtx.optimizers._prodigy import (
    ProdigyState as ProdigyState,
    prodigy as prodigy,
)
from gradtx.optimizers._radam import (
    radam as radam,
    scale_by_radam as scale_by_radam,
)
from gradtx.optimizers._rmsprop import (
    ScaleByRmsState as ScaleByRmsState,
    ScaleByRmsWithCountState as ScaleByRmsWithCountState,
    ScaleByRStdDevState as ScaleByRStdDevState,
    ScaleByRStdDevWithCountState as ScaleByRStdDevWithCountState,
    rmsprop as rmsprop,
    scale_by_rms as scale_by_rms,
    scale_by_stddev as scale_by_stddev,
)
from gradtx.optimizers._rprop import (
    ScaleByRpropState as ScaleByRpropState,
    rprop as rprop,
    scale_by_rprop as scale_by_rprop,
)
from gradtx.optimizers._schedule_free import (
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_sgd as schedule_free_sgd,
)
from gradtx.optimizers._sgd import (
    sgd as sgd,
)
from gradtx.optimizers._sign import (
    noisy_sgd as noisy_sgd,
    sign_sgd as sign_sgd,
    signum as signum,
)
from gradtx.optimizers._sm3 import (
    ScaleBySM3State as ScaleBySM3State,
    scale_by_sm3 as scale_by_sm3,
    sm3 as sm3,
)
from gradtx.optimizers._sophia import (
    HutchinsonState as HutchinsonState,
    SophiaState as SophiaState,
    hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
    scale_by_sophia as scale_by_sophia,
    sophia as sophia,
)
from gradtx.optimizers._yogi import (
    scale_by_yogi as scale_by_yogi,
    yogi as yogi,
)
