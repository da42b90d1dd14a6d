"""Mistakes of input, as a user types them: exit code 2, one message, no traceback, and nothing is left behind.

A new mistake is a line in one of the tables: what is typed after the command, and a part of the message.
"""

import resource
import shutil

import pytest

from conftest import typed_script
from samples import paint

SECONDS = 3  # of the processor; the modules are imported before

KEYS = [  # python train.py data=digits ...
    ("seed=-1", "seed=-1: must be a whole number from 0 to"),
    ("seed=4294967296", "seed=4294967296: must be a whole number"),
    ("seed=1.5", "seed=1.5: must be a whole number"),
    ("seed=one", "seed=one: must be a whole number"),
    ("seed=", "seed=: must be a whole number"),
    ("seed=nan", "seed=nan: must be a whole number"),
    ("seed=[1]", "seed=[1]: must be a whole number"),
    ("seed={a:1}", "seed={a: 1}: must be a whole number"),
    ("seed.a=1", "seed.a: there is no such key"),
    ("seed[0]=1", "seed[0]"),
    ("sed=1", "sed: there is no such key; did you mean seed?"),
    ("device=gpu", "device=gpu: must be one of auto, cpu, cuda, mps"),
    ("device=[cpu]", "device=[cpu]: must be one of auto, cpu, cuda, mps"),
    ("device={a:1}", "must be one of auto, cpu, cuda, mps"),
    ("device=cuda:0", "device=cuda:0: must be one of"),
    ("threads=0", "threads=0: must be a whole number from 1 to 1,024 or null"),
    ("threads=all", "threads=all: must be a whole number"),
    ("precision=fp16", "precision=fp16: must be one of fp32, tf32, bf16"),
    ("deterministic=warn", "deterministic=warn: must be true or false"),
    ("resume=1", "resume=1: must be true or false"),
    ("resume=null", "resume=null: must be true or false"),
    ("outputs=", "outputs=: must be"),
    ("outputs=null", "outputs=null: must be text"),
    ("outputs=[a]", "outputs=[a]: this value needs quotes"),
    ("outputs=/dev/null/x", "outputs=/dev/null/x: "),
    ("outputs=file.txt", "outputs=file.txt: "),
    ("evaluate_test=maybe", "evaluate_test=maybe: must be true or false or null"),
    ("evaluation.calibrate=maybe", "evaluation.calibrate=maybe: must be true or false"),
    ("evaluation.tta=flips", "evaluation.tta=flips: must be one of none, flip, flip_shift"),
    ("evaluation=null", "evaluation=null: must be a group of keys"),
    ("early_stopping.monitor=val/acc", "early_stopping.monitor=val/acc: must be one of train/loss"),
    ("early_stopping.patience=-1", "early_stopping.patience=-1: must be a whole number of at least 0 or null"),
    ("early_stopping.min_delta=nan", "early_stopping.min_delta=nan: must be a number of at least 0"),
    ("early_stopping.min_delta=inf", "early_stopping.min_delta=inf: must be a number of at least 0"),
    ("early_stopping=none", "early_stopping=none: must be a group of keys"),
    ("early_stopping.patients=3", "did you mean early_stopping.patience?"),
    ("sweep.objectives=val/loss", "sweep.objectives=val/loss: must be a list"),
    ("sweep.objectives=[]", "sweep.objectives=[]: must be one or more different metrics"),
    ("sweep.objectives=[val/loss,val/loss]", "must be one or more different metrics"),
    ("sweep.checkpoints_gb=-1", "sweep.checkpoints_gb=-1: must be a number from 0 to 1,000,000"),
    (
        "sweep.budget=90",
        "sweep.budget=90: must be a duration with its unit, such as 90s, 45min, 1.5h or 1h30min or null",
    ),
    ("sweep.budget=0s", "sweep.budget=0s: must be a duration with its unit, such as 90s"),
    ("sweep.budget=2hours", "sweep.budget=2hours: must be a duration with its unit, such as 90s"),
    ("sweep.budget=-5min", "sweep.budget=-5min: must be a duration with its unit, such as 90s"),
    ("training.budget=90", "training.budget=90: must be a duration with its unit, such as 90s"),
    ("training.budget=[90s]", "training.budget=[90s]: "),
    ("sweep.name=[a]", "sweep.name=[a]: this value needs quotes"),
    ("sweep=null", "sweep=null: must be a group of keys"),
    # networks by name, and initial weights
    ("model=resnet81", "model=resnet81: must be one of cnn, convnext_tiny"),
    ("model=torchvision", "model.name is missing: set model.name=..."),
    ("model=torchvision model.name=", "model.name=: must be text"),
    ("model=torchvision model.name=resnet81", "has no network of this name; did you mean resnet18 or"),
    (
        "model=torchvision model.name=mobilenetv3_small_100",
        "is a network of timm: model=timm model.name=mobilenetv3_small_100",
    ),
    ("model=torchvision model.name=zzz", "has no network of this name; it has alexnet"),
    ("model=timm model.name=resnet81", "has no network of this name; did you mean"),
    ("model=inception_v3 data.image_size=32", "data.image_size=32: must be at least 75 for inception_v3"),
    ("model=vgg16 data.image_size=16", "data.image_size=16: must be at least 32 for vgg16"),
    (
        "model=vit_b_16 data.image_size=100",
        "data.image_size=100: must be a multiple of 16 for vit_b_16, such as 96 or 112",
    ),
    ("model=vit_b_16 data.image_size=8", "data.image_size=8: must be at least 16 for vit_b_16"),
    ("model=vit_b_16 training.image_sizes=[32]", "training.image_sizes=[32]: must be [] for vit_b_16"),
    ("model=vgg16 training.image_sizes=[16]", "training.image_sizes=16: must be at least 32 for vgg16"),
    ("model.weights=imagenet", "model.weights=imagenet: this network has none; set null, a file, or run:ID"),
    ("model.weights=imagnet", "model.weights=imagnet: must be null, imagenet, run:ID, run:best, run:latest, or a file"),
    ("model.weights=file.txt", "model.weights=file.txt: must be null, imagenet, run:ID"),
    ("model.weights=nowhere.pth", "model.weights=nowhere.pth: there is no such file"),
    ("model.weights=[a.pth]", "model.weights=[a.pth]: this value needs quotes"),
    ("model.weights=run:best", "there are no runs here; train one"),
    # groups
    ("model=null", "model=null: must be one of cnn, convnext_tiny"),
    ("augment=null", "augment=null: must be one of light, none, photographs, standard, strong"),
    ("optimizer=null", "optimizer=null: must be one of adam, adamw, muon, sgd"),
    ("schedule=null", "schedule=null: must be one of constant"),
    ("training=null", "training=null: must be one of default"),
    ("tracking=null", "tracking=null: must be one of mlflow, none"),
    ("~model", "model"),
    ("~optimizer.lr", "optimizer.lr is missing"),
    ("model=", "model=: must be one of cnn, convnext_tiny"),
    ("model=cn", "did you mean model=cnn?"),
    ("model=[cnn]", "model=[cnn]: must be one of cnn, convnext_tiny"),
    ("model=[cnn,fastnet]", "model=[cnn,fastnet]: must be one of cnn, convnext_tiny"),
    ("model={a:1}", "model={a:1}: must be one of cnn, convnext_tiny"),
    ("model=../data/digits", "model=../data/digits: must be one of cnn, convnext_tiny"),
    ("model=cnn.yaml", "model=cnn.yaml: must be one of cnn, convnext_tiny"),
    ("model=_base", "model=_base: must be one of"),
    ("optimizer=_base", "optimizer=_base: must be one of adam"),
    ("optimizer=[adam,sgd]", "optimizer=[adam,sgd]: must be one of adam"),
    ("+model=cnn", "model"),
    ("+seed=1", "seed"),
    ("+new=1", "new: there is no such key"),
    ("++new=1", "new: there is no such key"),
    ("+new/group=1", "new/group"),
    ("models=cnn", "models: there is no such key; did you mean model?"),
    ("model@x=cnn", "model@x"),
    ("experiment=nothing", "experiment=nothing: must be one of baseline"),
    ("experiment=fast94", "; fast94 was renamed: experiment=fast92"),
    ("experiment=[baseline,nothing]", "experiment=[baseline,nothing]"),
    ("search=cnn", "search=cnn: a search needs a multirun"),
    # data
    ("data.name=[digits]", "data.name=[digits]: this value needs quotes: 'data.name=\"[digits]\"'"),
    ("data.name=", "data.name=: must be"),
    ("data._target_=null", "data._target_=null: must be the dotted path of a data source's class"),
    ("data._target_=.a.b", "data._target_=.a.b: "),
    ("data._target_=a..b", "data._target_=a..b: "),
    ("data._target_=os.path.join", "data._target_=os.path.join: must be a class derived from"),
    ("data._target_=nothing.Source", "data._target_=nothing.Source: there is no such class"),
    ("data.mean=[nan,0,0]", "data.mean[0]=nan: must be a number"),
    ("data.mean=[inf,0,0]", "data.mean[0]=inf: must be a number"),
    ("data.mean=[0,0]", "data.mean=[0, 0]: must be a list of 3"),
    ("data.mean=0.5", "data.mean=0.5: must be a list of 3"),
    ("data.mean=[a,0,0]", "data.mean[0]=a: must be a number"),
    ("data.mean=none", "data.mean=none: must be a list of 3"),
    ("data.std=[inf,1,1]", "data.std[0]=inf: must be a number"),
    ("data.std=[0,1,1]", "data.std[0]=0: must be a number above 0"),
    ("data.image_size=1e9", "data.image_size=1000000000.0: must be a whole number"),
    ("data.image_size=[32,32]", "data.image_size=[32, 32]: must be a whole number"),
    ("data.validation_size=0", "data.validation_size=0: must be a whole number of at least 1 or a number above 0"),
    ("data.validation_size=1.0", "data.validation_size=1.0: must be"),
    ("data.validation_size=1500", "data.validation_size=1500: must be at most 1499"),
    ("data.split=rand", "data.split=rand: must be one of random, stratified, first"),
    ("data.extra=tiger.jpg", "data.extra=tiger.jpg: must be a list"),
    ("data.extra=[tiger.jpg]", "data.extra[0]=tiger.jpg: must be a group of keys"),
    ("data.extra=[{path:pictures}]", "data.extra[0].label is missing"),
    ("data.extra=[{path:pictures,label:a,weight:2}]", "data.extra[0].weight: there is no such key"),
    ("data.extra=[{path:nowhere,label:3}]", "there is no file or folder nowhere"),
    ("data.extra=[{path:null,label:3}]", "data.extra[0].path=null: must be text"),
    ("data.extra=null", "data.extra=null: must be a list"),
    ("data.root=data", "data.root: there is no such key"),
    # other groups
    ("augment.flip=sometimes", "augment.flip=sometimes: must be one of none, random, alternating"),
    ("augment.translate=32", "augment.translate=32: must be"),
    ("augment.rotate=nan", "augment.rotate=nan: must be a number from 0 to 180"),
    ("augment.hue=0.7", "augment.hue=0.7: must be a number from 0 to 0.5"),
    ("augment.mixup=-1", "augment.mixup=-1: must be a number from 0 to 100"),
    ("model._target_=.a.b", "model._target_=.a.b: "),
    ("model._target_=a.b.", "model._target_=a.b.: "),
    ("model._target_=[a.b]", "model._target_=[a.b]: must be the dotted path"),
    ("model._target_=os.system", "model._target_=os.system: must be a class derived from"),
    ("model._target_=mine.Net", "model._target_=mine.Net: there is no such class"),
    ("model._target_=unreadable.Net", "/unreadable.py, line 3: "),
    ("model._target_=importing.Net", "/unreadable.py, line 3: "),
    ("model._target_=failing.Net", "/failing.py, line 2: NameError: name 'nothing'"),
    ("data._target_=unreadable.Source", "/unreadable.py, line 3: "),
    ("model.filters=0x10", "model.filters=0x10: must be a whole number"),
    ("model.filters='16'", "model.filters=16: must be a whole number"),
    ("model.filters=${model.filters}", "model.filters"),
    ("model.filters=${nothing}", "model.filters"),
    ("model.filters=${oc.env:NOTHING}", "model.filters"),
    ("model.filters=${", "model.filters=${: "),
    (("model.filters= ",), "model.filters=: must be a whole number"),
    ("model.filters=???", "model.filters is missing"),
    ("model.filters.x=1", "model.filters.x: there is no such key"),
    ("model.name=cnn", "model.name: there is no such key"),
    ("model={filters:3}", "model={filters:3}: must be one of"),
    ("optimizer.name={a:1}", "optimizer.name={a:1}: this value needs quotes"),
    ("optimizer.name=[adam]", "optimizer.name=[adam]: this value needs quotes"),
    ("optimizer.name=sgd", "optimizer.name=sgd: must be chosen by optimizer=sgd, because its keys are others"),
    ("optimizer.name=choice(adam,sgd)", "several values need a multirun: python train.py -m optimizer=adam,sgd"),
    ("optimizer.name=adam,sgd", "several values need a multirun: python train.py -m optimizer=adam,sgd"),
    ("optimizer.lr=inf", "optimizer.lr=inf: must be a number above 0 and at most 100"),
    ("optimizer.lr=nan", "optimizer.lr=nan: must be a number above 0 and at most 100"),
    ("optimizer.lr=1e-3x", "optimizer.lr=1e-3x: must be a number"),
    ("optimizer.lr=0,001", "optimizer.lr=0,001: several values need a multirun"),
    ("optimizer.lr=1e", "optimizer.lr=1e: must be a number"),
    ("optimizer.momentum=0.9", "optimizer.momentum: there is no such key"),
    ("schedule.name={}", "schedule.name={}: this value needs quotes"),
    ("schedule.end=0.1", "schedule.end: there is no such key"),
    ("schedule.warmup=25", "schedule.warmup=25.0: must be below training.epochs=25"),
    ("training.epochs=0", "training.epochs=0: must be a whole number from 1 to 100,000"),
    ("training.epochs=true", "training.epochs=true: must be a whole number"),
    ("training.batch_size=1e3", "training.batch_size=1000.0: must be a whole number"),
    ("training.gradient_clip=0", "training.gradient_clip=0: must be a number above 0 or null"),
    ("training.gradient_clip=inf", "training.gradient_clip=inf: must be a number above 0 or null"),
    ("training.image_sizes=[]x", "training.image_sizes=[]x: "),
    ("training.ema=1", "training.ema=1: must be a number above 0 and at most 0.999999 or null"),
    ("training.epoch=3", "did you mean training.epochs?"),
    ("training.freeze=", "training.freeze=: must be text of 1 to 4,000 characters or a list"),
    ("training.freeze=[]", "training.freeze=[]: must be none, backbone, or names of modules"),
    ("training.freeze={a:1}", "training.freeze={a: 1}: must be text"),
    (
        "training.freeze=[body]",
        "training.freeze=[body]: body has no parameters in this network; must be none, backbone",
    ),
    ("training.freeze=head", "or names of modules, such as 0, 3, 7, 9"),
    ("training.freeze=[0,3,7,9]", "training.freeze=[0, 3, 7, 9]: nothing is left to train"),
    ("training.unfreeze_epoch=3", "training.unfreeze_epoch=3: needs training.freeze=backbone, or names of modules"),
    ("training.freeze=backbone training.unfreeze_epoch=1", "must be a whole number of at least 2 or null"),
    (
        "training.freeze=backbone training.unfreeze_epoch=26",
        "training.unfreeze_epoch=26: must be at most training.epochs=25",
    ),
    ("training.accumulate=0", "training.accumulate=0: must be a whole number from 1"),
    ("training.accumulate=33", "training.accumulate=33: must be at most training.batch_size=32"),
    ("model=fastnet training.accumulate=32", "training.accumulate=32: must be at most 16 for this network"),
    ("optimizer.backbone_lr=0", "optimizer.backbone_lr=0: must be a number above 0 and at most 1"),
    ("optimizer.layer_decay=1.1", "optimizer.layer_decay=1.1: must be a number above 0 and at most 1"),
    # tracking
    ("tracking.uri=mlruns", "tracking.uri=mlruns: must be sqlite:///FILE.db"),
    ("tracking.uri=", "tracking.uri=: must be sqlite:///FILE.db"),
    ("tracking.uri=[a]", "tracking.uri=[a]: this value needs quotes"),
    ("tracking.uri=http://", "tracking.uri=http://: must be"),
    ("tracking.experiment=", "tracking.experiment=: must be text of 1 to 250 characters"),
    (("tracking.experiment='  '",), "must be text of 1 to 250 characters"),
    ("tracking.experiment=[a]", "tracking.experiment=[a]: this value needs quotes"),
    (f"tracking.experiment={'x' * 600}", "must be text of 1 to 250 characters"),
    ("tracking.artifacts=", "tracking.artifacts=: must be"),
    ("tracking.artifacts=file.txt", "tracking.artifacts=file.txt: "),
    (
        "tracking.artifacts=s3://bucket/folder",
        "tracking.artifacts=s3://bucket/folder: must be a folder of this machine",
    ),
    ("tracking.artifacts=file:///folder", "tracking.artifacts=file:///folder: must be a folder of this machine"),
    ("outputs=gs://bucket", "outputs=gs://bucket: must be a folder of this machine, not an address"),
    # text that needs quotes
    ("tracking.run_name=a=b", """needs quotes: 'tracking.run_name="a=b"'\n  python """),
    ("tracking.run_name=a,b", """several values need a multirun: python train.py -m ...; a single text"""),
    ("tracking.run_name=a(b", """needs quotes: 'tracking.run_name="a(b"'"""),
    ("tracking.run_name=f(b)", """needs quotes: 'tracking.run_name="f(b)"'"""),
    ("tracking.run_name=a[1]", """needs quotes: 'tracking.run_name="a[1]"'"""),
    ("tracking.run_name=a{1}", """needs quotes: 'tracking.run_name="a{1}"'"""),
    ("tracking.run_name=a#b", """needs quotes: 'tracking.run_name="a#b"'"""),
    ("tracking.run_name=it's", """needs quotes: 'tracking.run_name="it'"'"'s"'"""),
    # the syntax
    ("seed", "seed: cannot be read; write key=value, without spaces"),
    ("--training.epochs=3", "--training.epochs=3: there is no such option; a key is written as key=value"),
    ("digits", "digits: cannot be read; write key=value"),
    ("=3", "=3: "),
    (("seed 3",), "seed 3: cannot be read; write key=value"),
    ("seed==3", "seed==3: "),
    ("seed='3", "seed='3: "),
    ('tracking.run_name="a', 'tracking.run_name="a: '),
    ("data.extra=[{path:a", "data.extra=[{path:a: cannot be read"),
    ("training.image_sizes=[16", "training.image_sizes=[16: "),
    ("seed=foo(3)", "seed=foo(3): "),
    ("seed=range(1,3", "seed=range(1,3: "),
    ("seed=range(1,3)", "seed=range(1,3): several values need a multirun"),
    ("seed=interval(1,3)", "seed=interval(1,3): several values need a multirun"),
    ("model=glob(*)", "model=glob(*): several values need a multirun"),
    ("seed=int(one)", "seed=int(one): "),
    ("sèed=3", "sèed: there is no such key; did you mean seed?"),
    ("-seed=3", "-seed=3"),
    ("--seed=3", "--seed=3"),
    ("--cfg", "--cfg"),
    ("--cfg jobs", "invalid choice: 'jobs'"),
    ("--resolve", "--resolve"),
    ("--cfg job --package nothing", "nothing"),
    ("--cfg job --run", "--run"),
    ("--cfg job --info", "--info"),
    ("--info nothing", "invalid choice: 'nothing'"),
    ("--config-name nothing", "nothing"),
    ("--config-path nothing", "nothing"),
    ("--config-path conf.yaml", "config_path"),
    ("--config-dir", "--config-dir"),
    ("--config-dir nowhere", "nowhere"),
    ("--config-dir file.txt", "file.txt"),
    ("--config-dir own/broken model=broken", "broken.yaml"),
    ("--config-dir own/broken experiment=tabs", "tabs.yaml"),
    ("--config-dir own/broken experiment=list", "experiment/list"),
    ("--config-dir own/broken experiment=binary", "experiment=binary"),
    ("--config-dir own experiment=unknown_key", "training.epoch"),
    ("--config-dir own experiment=unknown_group", "nothing"),
    ("--config-dir own experiment=wrong_value", "training.epochs=many: must be a whole number"),
    ("--config-dir own experiment=number", "tracking.experiment=1.1: must be text"),
    ("--config-dir own model=mine", "model._target_=mine.Net: there is no such class"),
    ("--config-dir own model=mine model.width=wide", "model.width=wide: must have the type int"),
    ("--config-dir own model=mine model.widht=3", "did you mean model.width?"),
    ("--config-dir own model=without_target", "model._target_"),
    ("--experimental-rerun nowhere", "nowhere"),
    ("--shell-completion", "install"),
    # Hydra's own settings
    ("hydra=null", "hydra=null: "),
    ("hydra=x", "hydra=x: "),
    ("hydra={}", "hydra={}: "),
    ("~hydra", "hydra"),
    ("hydra.run=null", "hydra.run"),
    ("hydra.run.dir=null", "hydra.run.dir"),
    ("hydra.run.dir=file.txt", "hydra.run.dir"),
    ("hydra.run.dir=/dev/null/x", "hydra.run.dir"),
    ("hydra.job=null", "hydra.job"),
    ("hydra.job.chdir=perhaps", "hydra.job.chdir"),
    ("hydra.mode=FAST", "hydra.mode"),
    ("hydra.verbose={a:1}", "hydra.verbose"),
    ("hydra.searchpath=abc", "hydra.searchpath"),
    ("hydra.searchpath=[nowhere]", "hydra.searchpath"),
    ("hydra.searchpath=null", "hydra.searchpath"),
    ("hydra.output_subdir=[a]", "hydra.output_subdir"),
    ("hydra.nothing=1", "hydra.nothing"),
    ("hydra.job_logging=null", "hydra.job_logging"),
    ("hydra.job_logging.root.level=LOUD", "hydra: Unknown level: 'LOUD'"),
    ("hydra/job_logging=nothing", "hydra/job_logging=nothing: must be one of"),
    ("hydra/launcher=nothing", "hydra/launcher=nothing: must be one of"),
    ("hydra/sweeper=nothing", "hydra/sweeper=nothing: must be one of"),
    ("hydra/callbacks=nothing", "hydra/callbacks=nothing"),
    ("hydra.callbacks=null", "hydra.callbacks"),
    ("hydra.callbacks={a:1}", "hydra.callbacks"),
    ("hydra.callbacks.a._target_=nothing.B", "hydra.callbacks"),
    ("hydra.overrides=null", "hydra.overrides"),
    ("hydra.job.env_set=3", "hydra.job.env_set"),
    # contradictions
    ("optimizer=sgd optimizer.nesterov=true optimizer.momentum=0", "optimizer.nesterov=true: needs optimizer.momentum"),
    ("model=fastnet training.image_sizes=[64]", "training.image_sizes=[64]: must be at most data.image_size=32"),
    ("model=fastnet training.image_sizes=[16] training.epochs=1", "must be fewer than training.epochs=1"),
    ("model=fastnet model.widths=[]", "model.widths=[]: must be 1 to 4 widths"),
    ("model.kernel_size=40", "model.kernel_size=40: too large"),
    ("device=cuda", "device=cuda: is not available on this machine"),
    ("device=mps", "device=mps: is not available on this machine"),
    ("device=cpu precision=tf32", "precision=tf32: only CUDA has it"),
    ("tracking.uri=http://127.0.0.1:9", "tracking.uri=http://127.0.0.1:9: no MLflow server answers there"),
    ("tracking.uri=sqlite:///file.txt", "tracking.uri=sqlite:///file.txt: "),
    ("tracking.uri=sqlite:////dev/null/x.db", "tracking.uri=sqlite:////dev/null/x.db: "),
    ("tracking.uri=sqlite:///empty", "tracking.uri=sqlite:///empty: "),
    ("tracking.uri=nothing+postgresql://x", "tracking.uri=nothing+postgresql://x: must be"),
    ("tracking.uri=postgresql+nothing://x/y", "tracking.uri=postgresql+nothing://x/y: cannot be used"),
]

DATA = [  # python train.py ...
    ("data=digits data.exclude=nowhere.csv", "data.exclude=nowhere.csv: there is no such file; it must contain"),
    ("data=digits data.relabel=empty", "data.relabel=empty: is not a file; it must contain"),
    ("data=digits data.exclude=[a]", "data.exclude=[a]"),
    ("data=digits data.relabel=tables/good.csv", "line 2: there is no picture cat/0.png; pictures have names such as"),
    (
        "data=digits data.exclude=tables/headless.csv",
        "there is no column path or index; the columns are cat/0.png, cat",
    ),
    (
        "data=image_folder data.root=pictures data.relabel=tables/path.csv",
        "data.relabel=tables/path.csv: line 1: there is no column label; the columns are path",
    ),
    ("data=null", "data=null: must be one of cifar10, cifar100, csv, digits, image_folder"),
    ("data=", "data=: must be one of cifar10"),
    ("data=image_folder", "data.root is missing"),
    ("data=image_folder data.root=nowhere", "data.root=nowhere: there is no such folder"),
    ("data=image_folder data.root=file.txt", "data.root=file.txt: is not a folder"),
    ("data=image_folder data.root=", "data.root=: "),
    ("data=image_folder data.root='~nobody0/x'", "data.root=~nobody0/x: there is no such folder"),
    ("data=image_folder data.root=null", "data.root=null: must be text"),
    ("data=image_folder data.root=empty", "empty"),
    ("data=image_folder data.root=one", "at least two folders of pictures, one per class; it contains only cat"),
    (
        "data=image_folder data.root=pictures/cat",
        "it contains no folders, but 10 pictures: is the folder above it meant?",
    ),
    ("data=image_folder data.root=wrapped", "it contains only inside: is data.root=wrapped/inside meant?"),
    ("data=pictures", "for the pictures in this folder: data=image_folder data.root=pictures"),
    ("data.root=pictures", "data.root=pictures: contains folders of pictures; to train on them, add data=image_folder"),
    ("data=image_folder data.root=pictures training.epoch=3", "did you mean training.epochs?"),
    ("data=image_folder data.root=pictures data.test_size=0", "data.test_size=0: must be"),
    (
        "data=image_folder data.root=pictures data.validation_size=1000",
        "data.validation_size=1000: must leave at least 1 of the 16 images in each part",
    ),
    (
        "data=image_folder data.root=pictures data.test_size=20",
        "data.test_size=20: must leave at least 1 of the 20 images in each part",
    ),
    ("data=cifar10 data.urls=[http://127.0.0.1:9/x.tar.gz]", "x.tar.gz could not be downloaded"),
    ("data=image_folder data.root=pictures data.image_size=2", "data.image_size=2: must be a whole number from 4"),
    ("data=image_folder data.root=pictures/cat/0.png", "is not a folder"),
    ("data=csv", "data.file is missing"),
    (
        "data=csv data.file=nowhere.csv",
        "data.file=nowhere.csv: there is no such file; it must contain a line per picture",
    ),
    ("data=csv data.file=pictures", "data.file=pictures: is not a file"),
    ("data=csv data.file=tables/good.csv data.root=nowhere", "data.root=nowhere: there is no such folder"),
    ("data=csv data.file=tables/good.csv data.root=pictures data.fold=0", "data.fold=0: needs data.folds"),
    ("data=csv data.file=tables/good.csv data.root=pictures data.folds=5", "data.folds=5: needs data.fold, 0 to 4"),
    (
        "data=csv data.file=tables/good.csv data.root=pictures data.folds=30 data.fold=0",
        "too few images are there of cat (10), dog (10)",
    ),
    (
        "data=csv data.file=tables/good.csv data.root=pictures data.class_names=nowhere.txt",
        "data.class_names=nowhere.txt: there is no such",
    ),
    (
        "data=csv data.file=tables/good.csv data.root=pictures data.class_names=file.txt",
        "has 200 names, but there are 2 classes: cat, dog",
    ),
    ("data=csv data.file=tables/missing.csv data.root=pictures", "line 22: there is no file pictures/cat/99.png"),
    ("data=csv data.file=tables/unlabelled.csv data.root=pictures", "line 22: the label is empty"),
    ("data=csv data.file=tables/twice.csv data.root=pictures", "line 22: pictures/cat/0.png is on line 2 too"),
    ("data=csv data.file=tables/outside.csv data.root=pictures", "line 22: broken/cat/0.png is outside of pictures"),
    ("data=csv data.file=tables/headless.csv data.root=pictures", "line 1: names a picture (cat/0.png), but must name"),
    ("data=csv data.file=tables/semicolons.csv data.root=pictures", "line 1: the columns are separated by semicolons"),
    ("data=csv data.file=tables/grouped.csv data.root=pictures", "line 12: group=g holds all 10 pictures of dog"),
    ("data=csv data.file=tables/good.csv data.root=pictures data.group_column=patient", "there is no column patient"),
    ("data=tables/good.csv", "for the pictures named in this file: data=csv data.file=tables/good.csv"),
    (
        "data=image_folder data.root=pictures data.folds=11 data.fold=0",
        "too few images are there of cat (10), dog (10)",
    ),
    ("data=image_folder data.root=pictures data.skip_broken=yes", "data.skip_broken=yes: must be true or false"),
    ("data=cifar10 data.urls=[]", "data.urls=[]: "),
    ("data=cifar10 data.urls=null", "data.urls=null: must be a list"),
    ("data=cifar10 data.root=file.txt", "data.root=file.txt: "),
    ("data=cifar10 data.root=/dev/null/x", "data.root=/dev/null/x: "),
    ("data=cifar10 data.name=cifar11", "data.name=cifar11: must be one of cifar10, cifar100"),
]

MULTIRUNS = [  # python train.py -m data=digits ...
    ("search=nothing", "search=nothing: must be one of auto, cnn"),
    ("seed=1,1.5", "seed=1.5: must be a whole number"),
    ("seed=1,2 seed=3,4", "seed: is given twice"),
    ("seed=1,2 model.filtres=3", "did you mean model.filters?"),
    ("seed=range(0,1000000000)", "1,000,000,000 runs"),
    ("seed=range(0,1e9)", "1,000,000,000 runs"),
    ("optimizer.lr=range(0.1,1,0.000000001)", "900,000,000 runs"),
    ("seed=shuffle(range(0,1000000000))", "1,000,000,000 runs"),
    ("seed=range(0,1000) model.filters=range(1,1001)", "1,000,000 runs"),
    ("seed=range(0,3,0)", "seed=range(0,3,0): "),
    ("seed=range(0.0,3,0)", "seed=range(0.0,3,0): "),
    ("seed=range(3,1)", "seed=range(3,1): "),
    ("seed=range(1)x", "seed=range(1)x: "),
    ("seed=choice()", "seed=choice(): "),
    ("seed=range(a,b)", "seed=range(a,b): "),
    ("model.dropout=interval(0,0.5)", "is continuous; use hydra/sweeper=optuna"),
    ("optimizer=glob(x*)", "optimizer=glob(x*): matches no file of conf/optimizer/"),
    ("model.filters=glob(*)", "model.filters=glob(*): "),
    ("optimizer=sgd,adam optimizer.momentum=0.8", "optimizer=adam"),
    ("optimizer=glob(*) optimizer.momentum=0.8", "optimizer=adam"),
    ("schedule=cosine,constant schedule.end=0.1", "schedule=constant"),
    ("seed=1,2 model.weights=run:best", "model.weights=run:best: in a multirun, name the run by its id"),
    ("model=cnn,null", "model=null: must be one of cnn, convnext_tiny"),
    ("seed=1,2 device=cuda", "device=cuda: is not available on this machine"),
    ("seed=1,2 device=cpu,cuda", "device=cuda: is not available on this machine"),
    ("seed=1,2 precision=fp32,tf32", "precision=tf32: only CUDA has it"),
    ("seed=1,2 device=cuda hydra/launcher=joblib", "device=cuda: is not available on this machine"),
    ("hydra/sweeper=optuna seed=1,2 device=cuda", "device=cuda: is not available on this machine"),
    ("seed=1,2 optimizer.name=choice(adam,sgd)", "optimizer.name=sgd: must be chosen by optimizer=sgd"),
    ("seed=1,2 outputs=a,b", "outputs: concerns the multirun as a whole"),
    ("seed=1,2 sweep.join=true", "only a search can be joined"),
    ("seed=1,2 sweep.objectives=[seconds]", "the first must be one of val/loss, val/accuracy"),
    ("seed=1,2 hydra.sweeper.params=abc", "hydra.sweeper.params=abc: must be"),
    ("seed=1,2 hydra.sweeper.params={}x", "hydra.sweeper.params={}x: "),
    ("seed=1,2 hydra.sweeper=null", "hydra.sweeper=null"),
    ("seed=1,2 hydra.sweeper._target_=nothing.Sweeper", "hydra: Unknown plugin class : 'nothing.Sweeper'"),
    ("seed=1,2 hydra.sweeper.nothing=3", "hydra.sweeper.nothing"),
    ("seed=1,2 hydra.launcher=null", "hydra.launcher=null"),
    ("seed=1,2 hydra.sweep.dir=null", "hydra.sweep.dir"),
    ("seed=1,2 hydra/launcher=joblib hydra.launcher.n_jobs=many", "hydra.launcher.n_jobs=many"),
    ("seed=1,2 hydra/launcher=joblib hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: must be"),
    ("seed=1,2 hydra.mode=RUN", "hydra.mode"),
    ("--cfg job", "--cfg"),
    ("--info config", "--info"),
    ("--run seed=1,2", "--run"),
    ("hydra/sweeper=optuna", "there is nothing to search"),
    ("hydra/sweeper=optuna seed=1,2 tracking=none", "a search stores its points in MLflow"),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.n_trials=99999999999", "hydra.sweeper.n_trials=99999999999: must be"),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: must be a whole number"),
    (
        "hydra/sweeper=optuna seed=1,2 hydra.sweeper.n_trials=null",
        "hydra.sweeper.n_trials=null: must be a value, like 20",
    ),
    (
        "hydra/sweeper=optuna seed=1,2 hydra.sweeper.n_trials=[3]",
        "hydra.sweeper.n_trials=[3]: must be a value, like 20",
    ),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.n_jobs=0", "hydra.sweeper.n_jobs=0: must be a whole number"),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.storage=null", "hydra.sweeper.storage=null: must be"),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.storage=abc", "hydra.sweeper.storage=abc: "),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.storage=sqlite:///file.txt", "hydra.sweeper.storage=sqlite:///"),
    (
        "hydra/sweeper=optuna seed=1,2 hydra.sweeper.storage=sqlite:////dev/null/x",
        "hydra.sweeper.storage=sqlite:////dev/null/x: ",
    ),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.sampler=null", "hydra.sweeper.sampler=null: "),
    ("hydra/sweeper=optuna seed=1,2 hydra.sweeper.pruner=abc", "hydra.sweeper.pruner=abc: "),
    (
        "hydra/sweeper=optuna seed=1,2 hydra.sweeper.pruner._target_=os.system",
        "Optuna cannot create this sampler or pruner",
    ),
    ("hydra/sweeper=optuna seed=1,2 hydra/sweeper/pruner=nothing", "hydra/sweeper/pruner=nothing: must be one of"),
    ("search=auto", "hydra.sweeper.n_trials=null: needs a budget, such as sweep.budget=15min, or a number of trials"),
    (
        "search=auto sweep.budget=1min sweep.objectives=[val/loss,seconds]",
        "with several objectives no trial can be pruned",
    ),
    ("search=auto sweep.budget=1min hydra.sweeper.pruner.reduction_factor=1", "reduction_factor=1: must be"),
    ("search=auto sweep.budget=1min hydra.sweeper.spaces=[3]", "hydra.sweeper.spaces=3: must be"),
    ("search=cnn hydra/sweeper/sampler=grid", "is continuous"),
    ("search=cnn hydra.sweeper.params=abc", "hydra.sweeper.params=abc: must be"),
    ("search=cnn hydra.sweeper.params={nothing:'choice(1,2)'}", "hydra.sweeper.params"),
    ("search=cnn model.filters=range(16,4)", "model.filters=range(16,4): has no values"),
    ("search=cnn optimizer.lr=interval(0,nan)", "optimizer.lr"),
    ("hydra/sweeper=optuna optimizer=sgd,adam optimizer.momentum=0.8", "optimizer=adam"),
    ("hydra/sweeper=optuna optimizer.lr=tag(lgo,interval(0.1,0.2))", "there is no tag lgo"),
    ("hydra/sweeper=optuna optimizer.lr=tag(log,interval(0.0,0.2))", "optimizer.lr"),
    ("search=cnn model.kernel_size=choice(3,40)", "model.kernel_size=40: too large"),
    ("search=cnn sweep.objectives=[val/loss,seconds] hydra/sweeper/pruner=median", "use pruner=none"),
    ("hydra/sweeper=optuna seed=1,2 +hydra.sweeper.sampler.foo=3", "unexpected keyword argument 'foo'"),
    ("seed=1,2 sweep.name=a,b", "sweep.name: concerns the multirun as a whole"),
    ("seed=1,2 ++seed=3", "seed: is given twice: ++seed=3"),
    ("++outputs=a,b", "outputs: concerns the multirun as a whole"),
    ("seed=1,2 sweep.objectives=[]", "must be one or more different metrics"),
    ("--config-dir own search=broken_range", "model.filters=range(1"),
]

SCRIPTS = [
    ("predict.py", "the following arguments are required: pictures"),
    ("predict.py nowhere.png", "there are no runs here"),
    ("predict.py pictures/cat/0.png", "there are no runs here"),
    ("predict.py pictures/cat/0.png --top 0", "--top 0: must be at least 1"),
    ("predict.py pictures/cat/0.png --reject 95", "--reject 95: must be above 0 and at most 1, such as 0.95"),
    ("predict.py pictures/cat/0.png --reject 0.9 --request", "--reject: has no effect on --request"),
    ("predict.py pictures/cat/0.png --uri file.txt", "file.txt"),
    ("predict.py pictures/cat/0.png --uri http://127.0.0.1:9", "no MLflow server answers there"),
    ("predict.py pictures/cat/0.png --json --csv", "not allowed with argument"),
    ("predict.py empty", "there are no runs here"),
    ("predict.py pictures/cat/0.png --trust", "there are no runs here"),
    ("predict.py pictures/cat/0.png --trust=yes", "ignored explicit argument 'yes'"),
    ("evaluate.py --trusted", "unrecognized arguments: --trusted"),
    ("explain.py", "nothing to explain"),
    ("explain.py --mistakes -1", "nothing to explain"),
    ("explain.py --mistakes many", "invalid int value: 'many'"),
    ("explain.py pictures/cat/0.png --method magic", "invalid choice: 'magic'"),
    ("explain.py pictures/cat/0.png", "there are no runs here"),
    ("evaluate.py", "there are no runs here"),
    (
        "evaluate.py --data data.root=pictures",
        "begins with the name of a source: --data image_folder data.root=pictures",
    ),
    ("evaluate.py --split nothing", "invalid choice: 'nothing'"),
    ("reproduce.py", "the following arguments are required: RUN\n"),
    ("reproduce.py latest", "there are no runs here"),
    ("reproduce.py latest --threads 0", "--threads 0: must be from 1 to 1,024"),
    ("evaluate.py --corruptions", "there are no runs here"),
    ("evaluate.py --corruptions --only fog,rain", "--only rain: must be of gaussian_noise, shot_noise, "),
    ("evaluate.py --corruptions --limit 0", "--limit 0: must be at least 1"),
    ("evaluate.py --limit 9", "--only and --limit: need --corruptions"),
    ("export.py --format pt2", "there are no runs here"),
    ("export.py --format tflite", "invalid choice: 'tflite'"),
    ("export.py --format pt2 --output net.onnx", "--output net.onnx: must end with .pt2"),
    ("export.py --format pt2 --output file.txt/net.pt2", "file.txt is not a folder"),
    ("export.py --tolerance 1", "--tolerance 1: must be at least 0 and below 1"),
    ("export.py --tolerance little", "invalid float value: 'little'"),
    ("compare.py", "there are no runs here"),
    ("compare.py --objective nothing", "invalid choice: 'nothing'"),
    ("explore.py data=nothing", "data=nothing: must be one of"),
    ("explore.py data=digits model.filtres=3", "did you mean model.filters?"),
    ("explore.py data=digits --similarity 2", "--similarity 2: must be from 0.5 to 1"),
    ("explore.py data=digits outputs=/dev/null/x", "outputs=/dev/null/x"),
    (
        "explore.py data=csv data.file=tables/twice.csv data.root=pictures",
        "line 22: pictures/cat/0.png is on line 2 too",
    ),
    ("explore.py data=image_folder data.root=2024", "data.root=2024: there is no such folder"),
    ("check_labels.py data=digits model.filtres=3", "did you mean model.filters?"),
    ("check_labels.py data=digits data.fold=1", "data.fold=1: the check trains on every fold"),
    ("check_labels.py data=digits tracking=none", "tracking=none: the check loads the networks"),
    ("check_labels.py data=digits --similarity 2", "--similarity 2: must be from 0.5 to 1"),
    ("check_labels.py data=digits data.folds=1", "data.folds=1: must be a whole number from 2"),
    ("find_lr.py data=digits --from 1 --to 0.1", "must be above 0, and --to above --from"),
    ("find_lr.py data=digits --steps 1", "--steps 1: must be at least 20"),
    ("find_lr.py data=digits optimizer.lr=a,b", "optimizer.lr=a,b: several values need a multirun"),
    ("find_lr.py data=digits outputs=file.txt", "outputs=file.txt"),
]


def make_tables(folder):
    """Tables of the pictures, each with one mistake but the first."""
    rows = [f"{name}/{start + i}.png,{name}" for start, name in ((0, "cat"), (10, "dog")) for i in range(10)]
    good = ["path,label", *rows]
    grouped = ["path,label,group", *(f"{row},{'g' if row.endswith('dog') else ''}" for row in rows)]
    tables = {
        "good": good,
        "missing": [*good, "cat/99.png,cat"],
        "unlabelled": [*good, "cat/0.png,"],
        "twice": [*good, "cat/0.png,cat"],
        "outside": [*good, "../broken/cat/0.png,cat"],
        "headless": rows,
        "semicolons": [row.replace(",", ";") for row in good],
        "grouped": grouped,
        "path": ["path", "cat/0.png"],
    }
    folder.mkdir()
    for name, lines in tables.items():
        (folder / f"{name}.csv").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with what the tables name."""
    folder = tmp_path_factory.mktemp("project")
    for label, name in enumerate(("cat", "dog")):
        paint(folder / "pictures", name, 10, 10 * label)
        paint(folder / "broken", name, 10, 10 * label)
    (folder / "broken/cat/3.png").write_bytes(b"no picture")
    for name in ("one", "wrapped/inside"):
        paint(folder / name, "cat", 3, 0)
    paint(folder / "wrapped/inside", "dog", 3, 10)
    (folder / "empty").mkdir()
    make_tables(folder / "tables")
    (folder / "file.txt").write_text("a file\n" * 200)
    files = {
        "broken/model/broken": "_target_: [mine.Net\n",
        "broken/experiment/tabs": "# @package _global_\ntraining:\n\tepochs: 3\n",
        "broken/experiment/list": "# @package _global_\n- training\n",
        "experiment/unknown_key": "# @package _global_\ntraining:\n  epoch: 3\n",
        "experiment/unknown_group": "# @package _global_\ndefaults:\n  - override /model: nothing\n",
        "experiment/wrong_value": "# @package _global_\ntraining:\n  epochs: many\n",
        "experiment/number": "# @package _global_\ntracking:\n  experiment: 1.10\n",
        "model/mine": "_target_: mine.Net\nwidth: 3\n",
        "model/without_target": "width: 3\n",
        "search/broken_range": "# @package _global_\ndefaults:\n  - override /hydra/sweeper: optuna\nhydra:\n  sweeper:\n"
        "    params: {model.filters: 'range(1'}\n",
    }
    for name, content in files.items():
        (folder / f"own/{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"own/{name}.yaml").write_text(content)
    (folder / "unreadable.py").write_text("import torch\n\nclass Net(torch.nn.Module:\n    pass\n")
    (folder / "importing.py").write_text("from unreadable import Net\n")
    (folder / "failing.py").write_text("import torch\nwidth = nothing\nclass Net(torch.nn.Module):\n    pass\n")
    (folder / "own/broken/experiment/binary.yaml").write_bytes(b"\xff\xfe\x00")
    return folder


def limited(script, folder, arguments):
    """The body of a process that may use the processor for a few seconds only."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    typed_script(script, folder, arguments)


@pytest.fixture
def refused(start, project):
    """A function that types a command, which must be refused, in the folder; returns the message."""

    def run(script, *arguments):
        before = sorted(project.rglob("*"))
        process = start(limited, script, project, arguments)
        process.join(60)
        alive = process.is_alive()
        process.kill()
        process.join()
        output, errors = (project / "output.txt", project / "errors.txt")
        printed, message = output.read_text(), errors.read_text()
        output.unlink(), errors.unlink()
        left = sorted(set(project.rglob("*")) - set(before))
        for path in left:
            shutil.rmtree(path, ignore_errors=True), path.unlink(missing_ok=True)
        assert not alive, "still running"
        assert "Traceback" not in message + printed, message + printed
        assert process.exitcode == 2, (process.exitcode, message)
        assert not left
        reasons = [line.partition(": ")[0] for line in message.splitlines() if "=" in line.partition(": ")[0]]
        assert len(reasons) == len(set(reasons)), message  # one message per mistake
        return message

    return run


def words(arguments):
    return arguments.split() if isinstance(arguments, str) else arguments


def cases(table):
    return pytest.mark.parametrize(("arguments", "part"), table, ids=[" ".join(words(row[0]))[:60] for row in table])


@cases(KEYS)
def test_a_mistake_of_a_run(arguments, part, refused):
    assert part in refused("train.py", "data=digits", *words(arguments))


@cases(DATA)
def test_a_mistake_of_a_data_set(arguments, part, refused):
    assert part in refused("train.py", *words(arguments))


@cases(MULTIRUNS)
def test_a_mistake_of_a_multirun(arguments, part, refused):
    assert part in refused("train.py", "-m", "data=digits", *words(arguments))


@cases(SCRIPTS)
def test_a_mistake_of_a_script(arguments, part, refused):
    script, *rest = words(arguments)
    assert part in refused(f"scripts/{script}", *rest)
