import dataclasses, numpy as np, pytest
from test_training_loop import plan, run
@pytest.mark.filterwarnings("ignore")
def test_drift(images_file, tmp_path):
    import keras
    out={}
    for name, ranks, epochs, lr in [("one1",1,1,5e-3),("two1",2,1,5e-3),("one2",1,2,5e-3),("two2",2,2,5e-3),("noise2",1,2,5e-3*(1+1e-5)),("noise1",1,1,5e-3*(1+1e-5))]:
        s=tmp_path/name; s.mkdir()
        rec=run(dataclasses.replace(plan(images_file,s,ranks),epochs=epochs,learning_rate=lr))
        out[name]=(keras.models.load_model(s/"model/model.keras",compile=False), rec[0]["epochs"])
        print(name,[e["loss"] for e in rec[0]["epochs"]])
    for a,b in [("one1","two1"),("one1","noise1"),("one2","two2"),("one2","noise2")]:
        m,n=out[a][0],out[b][0]
        rel=[]
        for x,y,v in zip(m.get_weights(),n.get_weights(),m.weights):
            d=float(np.linalg.norm(x-y)/max(np.linalg.norm(x),1e-9))
            rel.append((round(d,6),float(np.abs(x-y).max()),v.path))
        print(a,b,sorted(rel)[-5:])
